"""The API server; nothing outside this folder talks to it."""

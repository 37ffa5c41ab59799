"""The API server; besides kopf, nothing of the operator outside this folder talks to it."""

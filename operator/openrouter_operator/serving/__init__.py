"""The operator's own HTTP endpoints."""

"""Guarded HTTP clients: the request's model, the answer's errors."""

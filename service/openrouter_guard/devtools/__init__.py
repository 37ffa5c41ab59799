"""A Valkey and processes for trying things out; never loaded in production."""

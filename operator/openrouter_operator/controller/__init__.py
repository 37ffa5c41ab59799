"""The loop of each resource: gather, decide, apply."""

"""Tells from an exception or an answer whether it is the upstream's fault."""

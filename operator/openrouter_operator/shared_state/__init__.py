"""The shared state of each scope, as the operator follows it."""

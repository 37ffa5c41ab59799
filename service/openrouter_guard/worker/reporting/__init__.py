"""The background of a worker: reports, permits, and decisions while Redis is away."""

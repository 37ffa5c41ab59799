"""The commands that need Redis and nothing else."""

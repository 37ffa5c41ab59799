"""Threads, forks and signals."""

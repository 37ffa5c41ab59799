"""The classes and functions of the existing system, on today's machinery."""

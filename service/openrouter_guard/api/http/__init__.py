"""HTTP without our subject: connections, tokens, problems, conditional requests."""

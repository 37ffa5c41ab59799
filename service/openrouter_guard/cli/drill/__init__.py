"""``openrouter-guard drill``: a rehearsal of an outage, which ends by itself."""

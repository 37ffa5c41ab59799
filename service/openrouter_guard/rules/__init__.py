"""The rules of the product, as pure functions: no clock, no I/O, no logging.

signals        the meaning of one answer of the upstream
breaker        the states of the circuit breaker, and how one follows from another
shared_state   what a fleet shares about one scope: plain data
evaluation     the consequences of the counted results
transitions    changes from one state to another
trial_calls    permits, and the end of a trial call
admission      for how long calls must wait; ramp: how many may go while a fleet comes back
question       the question to the fleet before the breaker opens
limits, waits  rate limits, and the times that answers name
models         single models that fail while others work
health_checks  when a check may be made, and its effect
override       a person's decision
loss           restores a state that Redis has lost
codec          the shared state as a Redis hash; parsing: parsers that cannot raise
redaction      removes secrets from foreign text
window, latency, time_in_state   counts by time
"""

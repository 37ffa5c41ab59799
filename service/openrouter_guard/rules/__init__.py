"""The rules of the product, as pure functions: no clock, no I/O, no logging.

signals        the meaning of one answer of the upstream
breaker        the states of the circuit breaker, and how one follows from another
shared_state   what a fleet shares about one scope: plain data
evaluation     the consequences of what was counted
transitions    moves from one state to another
trial_calls    permits, and the end of a trial call
admission      for how long calls must wait; ramp: how many may go while a fleet comes back
question       asked to the fleet before the breaker opens
limits, waits  rate limits, and the times that answers name
models         single models that fail while others work
health_checks  when a check may be made, and what follows from it
override       a person's decision
loss           what to write where Redis has lost the state
codec          the shared state as a Redis hash; parsing: readers that cannot raise
redaction      secrets in texts that others wrote
window, latency, time_in_state   counts by time
"""

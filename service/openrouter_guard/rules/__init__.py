"""The rules of the product, as pure functions: no clock, no I/O, no logging.

signals   what an answer of the upstream says about it
breaker   the states of the circuit breaker and how one follows from another
override  what a person decides over the breaker's head
models    single models that fail while others work
record    what a fleet shares, and how it changes
window    how many calls failed or were slow lately
times     how long the breaker is in each state, by day
checks    what health checks have to do with it
hiding    keys in what others wrote
text      what we write, as every reader takes it
wire      its form in a Redis hash
"""

"""Pure decisions of the operator: no clock, no I/O, no logging."""

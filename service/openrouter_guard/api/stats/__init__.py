"""The fleet's counters and the figures that follow from them."""

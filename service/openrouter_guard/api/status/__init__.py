"""The status: how fresh it is, and the answers that follow from it; pure but for the health checker."""

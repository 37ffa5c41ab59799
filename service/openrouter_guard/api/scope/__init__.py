"""One scope: its service, events, reports and permits."""

"""One launch and its instants."""

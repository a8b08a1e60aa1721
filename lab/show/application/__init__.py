"""An application's services on one timeline: for a terminal, and for a report."""

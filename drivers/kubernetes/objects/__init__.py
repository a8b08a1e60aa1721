"""What is asked of a cluster as objects, and what their status says."""

"""The host's kernel, traced in an instance of the run's own."""

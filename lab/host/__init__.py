"""This machine: what it is, what runs on it, and what it gives."""

"""Whole guests: a distribution's disk as people have it, built here or brought by the user."""

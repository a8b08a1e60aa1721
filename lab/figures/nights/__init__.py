"""Nights: the same measurement again and again on one host, and whether the last one has become slower."""

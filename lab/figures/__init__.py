"""Figures out of raw values."""

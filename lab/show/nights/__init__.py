"""Nights as a terminal and a page show them."""

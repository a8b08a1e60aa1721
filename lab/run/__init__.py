"""Rounds of a scenario over targets."""

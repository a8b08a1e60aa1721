"""Launches: pods and deployments, the ways to them, and their processes on this host."""

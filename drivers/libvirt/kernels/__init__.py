"""Kernels of other versions and other machines than the host's: where they come from, and what their files are."""

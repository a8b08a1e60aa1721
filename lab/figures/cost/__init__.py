"""What a service costs by how often it is called, out of stored runs and a dated table of prices.

A bill is a sum, so that all here are means, where the lab's other figures are medians. Nothing is stored, and nothing
here is a cloud's: the durations and sizes are those of the machine that was measured (see docs/cost.md).
"""

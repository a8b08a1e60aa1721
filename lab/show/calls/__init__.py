"""What is shown of a function's calls: their phases, bursts, gaps and failures, as a table and as a chart."""

"""Training from settings to runs: data, inputs, run plans, jobs, and the current runs."""

"""The training story: settings, data, inputs, run plans, jobs, and what becomes of the runs."""

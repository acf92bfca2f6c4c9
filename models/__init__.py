"""The specialists: one folder per task, each a value that the orchestrator works with."""

"""People who do not exist: drawn photos and their tables, for demos and tests."""

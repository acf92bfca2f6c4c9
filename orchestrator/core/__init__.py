"""What every other package builds on: the label code, errors, metrics, events, atomic files. Nothing heavy is imported."""

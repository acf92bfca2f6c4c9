"""What everything stands on: the label code, errors, metrics, events, whole files. Nothing heavy is imported."""

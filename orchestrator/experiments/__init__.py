"""Experiments: grids, searches, stages, views; runs held against each other; trackers told. All of it ends in runs on record.

Nothing here trains by itself: `pipeline.train_runs` does.
"""

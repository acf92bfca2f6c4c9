"""Experiments: grids, searches, stages, views, comparisons of runs, and trackers. All results are recorded runs.

Training itself is done by `pipeline.training.train_runs`.
"""

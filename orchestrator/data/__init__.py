"""From files to batches: tables of photos, fold plans, pixels, sampling, augmentation.

Knows neither specialists nor networks.
"""

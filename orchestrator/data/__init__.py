"""From files to batches: tables of photos, fold plans, pixels, sampling, augmentation.

Layer 1: knows neither specialists nor networks.
"""

"""Faces in photos: found by one detector, kept by content, the same for training and prediction."""

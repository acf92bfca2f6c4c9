"""Faces in photos: found by one detector, cached by content, the same for training and prediction."""

"""Applies a trained network to whole slices."""

"""The computation of a run: makes a network of integers of a teacher and settings."""

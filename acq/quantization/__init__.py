"""From settings and a teacher to a network of integers: what a run computes."""

"""The two steps, generator and student: their parts, losses and ranges."""

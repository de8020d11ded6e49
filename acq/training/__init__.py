"""The training steps of generator and student: parts, losses and ranges."""

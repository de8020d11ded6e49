"""From slices to a trained network: examples, losses, flows, the training step."""

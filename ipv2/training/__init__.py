"""From slices to a trained network: examples, losses, flows, one step."""

"""TFDS builders of misaligned low-dose / normal-dose slice pairs."""

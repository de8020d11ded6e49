"""Denoisers, one linen network a file."""

"""What networks are made of: float, quantized, integer and observed, one interface."""

"""Layers of networks with one interface: float, quantized, integer and observed."""

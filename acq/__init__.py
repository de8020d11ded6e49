"""Attention-corrected data-free quantization (arXiv 2301.07266)."""

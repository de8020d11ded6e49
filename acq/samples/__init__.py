"""Samples that stand in for the data: what is asked of them, and what makes them."""

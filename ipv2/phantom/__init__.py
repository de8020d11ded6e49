"""A chest made of ellipses, in two breaths."""

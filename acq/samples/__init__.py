"""Samples that replace the data: conditions, the generator, the teacher's outputs."""

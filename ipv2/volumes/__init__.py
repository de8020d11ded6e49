"""Processes whole volumes slice by slice, for the tasks and the Python API.

low_dose.py   simulates a lower dose
pairs.py      purifies pairs of volumes
denoised.py   denoises volumes with a network
checks.py     checks geometry before a simulation or denoising
scan.py       a volume in memory that keeps the padding of its file
naming.py     SeriesDescription of derived images
"""

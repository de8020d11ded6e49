"""What is done to whole volumes, slice by slice; tasks and the Python API do it so.

low_dose.py   noise of a lower dose
pairs.py      pairs of volumes, purified
denoised.py   noise taken out by a network
checks.py     what a volume must be
scan.py       a volume in memory that keeps what its file marks as padding
naming.py     what derived images say of where they come from
"""

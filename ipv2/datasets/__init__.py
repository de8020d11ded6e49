"""TFDS builders of misaligned low-dose / normal-dose slice pairs.

`pair` defines the record that they share. `common.dataset` builds and reads the
datasets. Each builder has its own module; `tests/ipv2/datasets` shows their use.
"""

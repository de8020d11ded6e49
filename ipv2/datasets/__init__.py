"""TFDS builders of misaligned low-dose / normal-dose slice pairs.

`pair` is the record they share, `common.dataset` builds and reads them, each builder is
a module of its own; the tests of `tests/ipv2/datasets` show them in use.
"""

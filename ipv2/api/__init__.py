"""IPv2 for a notebook: scans or arrays in, the same out; no config, no files needed.

    scan = ipv2.read_scan("series/")
    low = ipv2.simulate_low_dose(scan, dose=0.02)
    pair = ipv2.purify(low, scan)
    net = ipv2.load_denoiser("runs/x/export")
    ipv2.write_scan("out/", net.denoise(low), like=low)

Arrays are HU, (rows, columns) or (slices, rows, columns), of NumPy or JAX; where
physics needs the size of a pixel they come with `spacing_mm`. Results are float32 of
the same shape, NumPy for NumPy and JAX for JAX, or scans where scans were given. They
are those of the tasks of the same name, seed and settings, before a file rounds them
(of simulated noise some processes differ by 1e-4 HU). What is compiled is compiled once
for an image's size.

Errors: `ValueError` for a value that cannot be, with what is accepted; `TypeError` for
what is of another kind. What is wrong with a file is a `UserError`, a `ValueError` too.
"""

from common.errors import UserError
from ipv2.api.denoiser import TrainedDenoiser, load_denoiser
from ipv2.api.files import read_scan, write_scan
from ipv2.api.low_dose import simulate_low_dose
from ipv2.api.pairs import PurifiedPair, purify
from ipv2.kernels.photon_noise import DoseParams
from ipv2.training.denoiser_spec import DenoiserSpec
from ipv2.volumes.scan import Scan

__all__ = [
    "DenoiserSpec",
    "DoseParams",
    "PurifiedPair",
    "Scan",
    "TrainedDenoiser",
    "UserError",
    "load_denoiser",
    "purify",
    "read_scan",
    "simulate_low_dose",
    "write_scan",
]

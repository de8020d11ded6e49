"""IPv2 for a notebook: takes and gives scans or arrays, without config and files.

    scan = ipv2.read_scan("series/")
    low = ipv2.simulate_low_dose(scan, dose=0.02)
    pair = ipv2.purify(low, scan)
    net = ipv2.load_denoiser("runs/x/export")
    ipv2.write_scan("out/", net.denoise(low), like=low)

Arrays are HU, (rows, columns) or (slices, rows, columns), of NumPy or JAX. Give
`spacing_mm` with an array where physics needs the size of a pixel. Results are float32
and have the same shape: NumPy for NumPy, JAX for JAX, scans for scans. They are those
of the tasks with the same name, seed and settings, before a file rounds them (simulated
noise of some processes differs by 1e-4 HU). Every function is compiled once for an
image size.

Errors: `ValueError` for a value that is not accepted, `TypeError` for one of another
type, `UserError` (a `ValueError` too) for a file that cannot be used.

`ipv2.__all__` lists the public names.
"""

from common.errors import UserError as UserError
from ipv2.api.denoiser import TrainedDenoiser as TrainedDenoiser
from ipv2.api.denoiser import load_denoiser as load_denoiser
from ipv2.api.files import read_scan as read_scan
from ipv2.api.files import write_scan as write_scan
from ipv2.api.low_dose import simulate_low_dose as simulate_low_dose
from ipv2.api.pairs import PurifiedPair as PurifiedPair
from ipv2.api.pairs import purify as purify
from ipv2.kernels.photon_noise import DoseParams as DoseParams
from ipv2.training.denoiser_spec import DenoiserSpec as DenoiserSpec
from ipv2.volumes.scan import Scan as Scan

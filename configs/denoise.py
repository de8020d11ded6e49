"""Denoises chest CT with the network that ships: no training, no data of yours but CT.

  python launch.py --config configs/denoise.py --config.denoise.input=DIR \
      --config.denoise.output=DIR

The input is a DICOM series, a file, or a folder of many volumes (DICOM series folders,
NIfTI, MHA/MHD, NRRD; PNG with their window and pixel size). The output has the same
formats and names, in HU. The log and the DICOM headers name the network; a line warns
of scans that are noisier or quieter than what it was trained on. weights/README.md
says what it was trained and tested on. Not for diagnosis.

`--config.denoise.model=FOLDER` takes a network of yours: an export, or the folder of a
run. So does `--config.denoise.model=FILE.onnx`, a file of task export, in onnxruntime,
or in OpenVINO with `--config.denoise.runtime=openvino` (pip install openvino), which is
up to twice as fast for files of integers.

Variants: `sample_ct` denoises real chest CT (a download of 19 MB), `smoke` a small
phantom in seconds.

Hardware and time: see docs/denoising.md.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs.base_ipv2 import get_base


def _smoke(config: ConfigDict) -> None:
    config.denoise.embedded = "phantom"
    config.data.phantom_size = 64
    config.data.phantom_slices = 2


VARIANTS: Variants = {
    "sample_ct": lambda c: c.update({"denoise": {"embedded": "sample_ct"}}),
    "smoke": _smoke,
}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_base()
    config.task = "denoise"
    config.denoise.model = "shipped"
    return apply_variants(config, variant, VARIANTS)

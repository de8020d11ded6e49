"""Simulates a lower dose: reads a folder of CT, writes the same folder.

  python launch.py --config configs/simulate.py --config.data.input=DIR \
      --config.dose=0.1 --config.output=DIR

The input is a DICOM series, a file, or a folder of many volumes (DICOM series folders,
NIfTI, MHA/MHD, NRRD; PNG with their window and pixel size). The output has the same
formats and names, in HU. A .json beside each volume states how it was made. The same
command again makes only the missing volumes.

`--task calibrate` prints the photons, electronic noise and kernel of your scanner, as
overrides for this recipe and for training.

Variants, joined by commas: `sample_ct` reads real chest CT (a download of 19 MB);
`smoke` takes seconds with a small phantom.

Hardware and time: for 512 x 512 slices and 512 views about 0.1 s per slice on two CPU
cores, after about ten seconds of compiling.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs.base_ipv2 import DRAWN, get_base


def _smoke(config: ConfigDict) -> None:
    config.data.embedded = "phantom"
    config.data.phantom_size = 64
    config.data.phantom_slices = 3
    config.noise.views = 48
    config.batch_size = 2


VARIANTS: Variants = {
    "sample_ct": lambda c: c.update({"data": {"embedded": "sample_ct"}}),
    "smoke": _smoke,
}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = ConfigDict()
    config.method = "ipv2"
    config.task = "simulate"
    config.seed = 0  # of the noise
    config.strict = False  # whether skipped volumes end in exit status 3
    config.dose = 0.25  # of the normal dose
    config.input_dose = 1.0  # dose of the scans, of the normal dose
    config.output = ""  # folder to write; '': `low_dose` in the workdir
    config.overwrite = False  # whether to replace existing results
    config.calibrate = False  # fit each volume's noise model to the volume
    config.batch_size = 8  # slices at once; changes memory, not results

    config.data = ConfigDict()
    config.data.input = ""  # a file, or a folder of one series or many volumes
    config.data.series = ""  # which series, if a folder holds several
    config.data.window = (0.0, 0.0)  # of PNG: (centre, width) in HU
    config.data.pixel_mm = 0.0  # pixel size of files that do not state it; 0: unknown
    config.data.gaps = "refuse"  # uneven slice distances: refuse, allow
    config.data.multiframe = False  # write a DICOM series as one multi-frame file
    config.data.trust_hu = False  # accept values that do not look like HU
    config.data.low = ""  # task calibrate: scans of the same patients at a lower dose
    config.data.low_dose = 0.25  # the dose of data.low
    config.data.embedded = ""  # instead of data.input: phantom, sample_ct
    config.data.phantom_size = 256
    config.data.phantom_slices = 8
    config.data.cache = "runs/datasets"

    config.noise = get_base().noise  # configs/base_ipv2.py explains its keys
    del config.noise.dose, config.noise.input_dose
    for key in DRAWN:  # of training
        del config.noise[key]
    return apply_variants(config, variant, VARIANTS)

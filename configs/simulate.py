"""A lower dose than the scans were taken at: a folder of CT in, the same folder out.

  python launch.py --config configs/simulate.py --config.data.input=DIR \
      --config.dose=0.1 --config.output=DIR

The input is a DICOM series, a file, or a folder of many (DICOM series folders, NIfTI,
MHA/MHD, NRRD; PNG with their window and pixel size). The output has its formats and
names, HU, and beside each volume a .json that says how it was made. The same command
again goes on with what is missing.

`--task calibrate` prints the photons, electronic noise and kernel of the user's own
scanner, as overrides for this recipe and for training.

Variants, joined by commas: `sample_ct` takes real chest CT (fetched, 19 MB), `smoke` a
small phantom in seconds.

Hardware and time: 512 x 512 slices, 512 views: about 0.1 s a slice on two CPU cores,
after some ten seconds of compiling.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs.base_ipv2 import get_base


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
    config.strict = False  # skipped volumes end in exit status 3
    config.dose = 0.25  # of the normal dose
    config.input_dose = 1.0  # what the scans were taken at
    config.output = ""  # the folder to write; '': low_dose in the workdir
    config.overwrite = False  # whether to make anew what is there
    config.calibrate = False  # each volume's noise model from the volume itself
    config.batch_size = 8  # slices at once: memory, not results

    config.data = ConfigDict()
    config.data.input = ""  # a file, a folder of one series, or of many volumes
    config.data.series = ""  # which series, where a folder holds several
    config.data.window = (0.0, 0.0)  # (centre, width) in HU of PNG
    config.data.pixel_mm = 0.0  # size of a pixel, for files that do not say; 0: unknown
    config.data.gaps = "refuse"  # unevenly spaced slices: refuse, allow
    config.data.multiframe = False  # write a DICOM series as one multi-frame file
    config.data.trust_hu = False  # take values for HU that do not look like it
    config.data.low = ""  # task calibrate: the same patients at a lower dose
    config.data.low_dose = 0.25  # that dose
    config.data.embedded = ""  # in place of data.input: phantom, sample_ct
    config.data.phantom_size = 256
    config.data.phantom_slices = 8
    config.data.cache = "runs/datasets"

    config.noise = get_base().noise  # what each key means: base_ipv2
    del config.noise.dose, config.noise.input_dose
    return apply_variants(config, variant, VARIANTS)

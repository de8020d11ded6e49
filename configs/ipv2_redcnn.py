"""RED-CNN on IPv2's purified pairs.

  python launch.py --config configs/ipv2_redcnn.py --config.data.root=DIR

DIR holds lq/ and gt/ (DICOM series, NIfTI, MHA, NRRD or PNG), paired by name. Without
it the embedded data are used: real chest CT with a simulated breath and dose, and the
phantom.

Variants, joined by commas: `none`, `v1`, `v2` (default); `no_background`, `no_add`,
`no_remove` switch off one module of v2; `aligned` also aligns the body's outline;
`registered`, `simulated`, `gated`, `weighted` are further kinds of pairs (see
ipv2/training/pairs.py and ipv2/datasets/registration.py);
`reference` has the published 8-bit masks and noise; `smoke` takes seconds.

Hardware and time: a step takes about 1 s on two CPU cores. The full schedule on a GPU
or TPU has not been run.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs.base_ipv2 import PAIRS, get_base


def _smoke(config: ConfigDict) -> None:
    config.data.embedded = ("phantom",)
    config.data.phantom_size = 64
    config.data.phantom_patients = (2, 1, 1)
    config.data.phantom_slices = 2
    config.noise.views = 48
    config.train.duration = "4 steps"
    config.train.batch_size = 4
    config.train.patches_per_slice = 1
    config.train.patch = 32
    config.train.log = config.train.save = config.train.evaluate = "2 steps"
    config.evaluate.batch_size = 2


VARIANTS: Variants = {
    **{
        name: lambda c, options=options: c.update({"purify": options})
        for name, options in PAIRS.items()
    },
    "reference": lambda c: c.update(
        {"purify": {"variant": "reference", "add_noise": "reference"}}
    ),
    "smoke": _smoke,
}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    return apply_variants(get_base(), variant, VARIANTS)

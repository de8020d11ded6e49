"""A U-Net for many scanners: noise is simulated at every dose; no two breaths.

  python launch.py --config configs/ipv2_unet.py --config.data.normal_dose=DIR

This recipe made the network in weights/. Each example draws its scan: dose, photons and
reconstruction kernel. Steps take whole slices and means of 2 x 2 pixels in turn. Whole
slices are normal-dose scans: the target is the slice, with its noise. Means have little
noise of their own: their target gets the noise of a normal dose of the drawn scan. So
the network learns how much of what it sees a normal dose would show too. The loss
counts every noise level alike. Without `normal_dose` the embedded data are used: real
chest CT, and a few slices of the phantom. docs/denoising.md says what each brings.

Variants, joined by commas: `means` goes on from a run, with a loss that also counts
means of regions, for HU; `smoke` takes seconds.

  python launch.py --config configs/ipv2_unet.py --workdir FIRST
  python launch.py --config configs/ipv2_unet.py:means --config.train.start=FIRST

Hardware and time: an hour on one CPU core, and six minutes for `means`.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs import ipv2_redcnn
from configs.base_ipv2 import get_base


def _smoke(config: ConfigDict) -> None:
    ipv2_redcnn.VARIANTS["smoke"](config)
    config.model.width = 4
    config.train.patch = 16
    config.optimizer.warmup = ""


def _means(config: ConfigDict) -> None:
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup = "60 steps"
    config.train.duration = config.train.evaluate = "600 steps"
    config.train.loss = "relative_mse_means"
    config.train.ema = 0.99


VARIANTS: Variants = {"means": _means, "smoke": _smoke}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_base()
    config.model.update({"name": "unet", "width": 16})
    with config.unlocked():
        config.model.levels = 3
    config.purify.version = "simulated"
    config.noise.dose_range = (0.01, 0.5)
    config.noise.photons_range = (5e4, 6e5)
    config.noise.cutoff_range = (0.5, 2.5)
    config.noise.target_dose = (0.0, 1.0)
    config.data.phantom_patients = (2, 1, 2)
    config.data.phantom_slices = 2
    config.data.sample_slices = (0, 64)
    config.data.sample_val = (42, 44)
    config.data.sample_test = (22, 47, 48, 49)
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = "200 steps"
    config.train.duration = "6000 steps"
    config.train.loss = "relative_mse"
    config.train.batch_size = 8
    config.train.patches_per_slice = 4
    config.train.patch = 96
    config.train.shrink = (1, 2)
    config.train.ema = 0.999
    config.train.log = "50 steps"
    config.train.save = "250 steps"
    config.train.evaluate = "6000 steps"
    config.evaluate.batch_size = 2
    return apply_variants(config, variant, VARIANTS)

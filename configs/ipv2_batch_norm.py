"""Small denoisers with batch normalisation, which ACQ can quantize without data.

  python launch.py --config configs/ipv2_batch_norm.py:unet

Variants: `dncnn` (default), `unet`, `nafnet`; `redcnn` and `cnn10`, to compare with
networks that have no batch normalisation; joined with a comma, `smoke` takes seconds.
Data and held-out slices are those of configs/ipv2_unet.py; doses are low, and steps
fewer and smaller. In place of NAFNet's published normalisation over channels, and of
none in the U-Net, the first three have batch normalisation: its running statistics are
all that configs/acq_denoiser.py knows of the training images.

Hardware and time: on one CPU core each network takes 4 to 10 minutes, RED-CNN 20.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs import ipv2_unet
from configs.base_ipv2 import get_base

NETWORKS = {
    "dncnn": {"name": "dncnn", "width": 32, "depth": 9},
    "unet": {"name": "unet", "width": 16, "levels": 3, "norm": "batch"},
    "nafnet": {
        "name": "nafnet",
        "width": 12,
        "encoder_blocks": (1, 1),
        "middle_blocks": 1,
        "decoder_blocks": (1, 1),
        "norm": "batch",
    },
    "redcnn": {"name": "redcnn", "width": 24},
    "cnn10": {"name": "cnn10", "width": 0},
}


def _network(name: str):
    """Returns the variant that trains a network."""

    def change(config: ConfigDict) -> None:
        base = get_base().model
        for key in set(config.model) - set(base):
            del config.model[key]
        with config.unlocked():
            config.model.update(NETWORKS[name])

    return change


def _smoke(config: ConfigDict) -> None:
    has_width = config.model.width > 0
    ipv2_unet.VARIANTS["smoke"](config)
    if not has_width:
        config.model.width = 0  # CNN-10 has one width


VARIANTS: Variants = {**{name: _network(name) for name in NETWORKS}, "smoke": _smoke}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = ipv2_unet.get_config()
    _network("dncnn")(config)
    # One kind of pixels and a decade of doses: batches then have similar statistics.
    config.noise.dose_range = (0.01, 0.1)
    config.noise.target_dose = (0.0,)
    config.train.shrink = (1,)
    config.train.loss = "mse"
    config.train.duration = "600 steps"
    config.train.evaluate = "600 steps"
    config.train.batch_size = 8
    config.train.patch = 64
    config.train.ema = 0.99
    config.optimizer.warmup = "100 steps"
    return apply_variants(config, variant, VARIANTS)

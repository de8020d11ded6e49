"""Tests whether IPv2 helps every denoiser: eight networks, six kinds of pairs.

  python launch.py --config configs/ipv2_zoo.py

Networks: CNN-10, RED-CNN, DnCNN, U-Net, NAFNet, Restormer, FM and FFM, narrow enough
for two CPU cores. Pairs: as they are; purified by IPv1; by IPv2; by IPv2 without Remove
Background, without Add noise, without Remove noise. Remove noise changes only the test
label, so the last kind does not train again: it measures IPv2's network against another
label. A seventh kind, `aligned`, is IPv2 with the body's outline aligned too. It runs
only if you name it in `compare.pairs`. Data: the embedded CT (one TCIA patient) and the
phantom, with a simulated breath and 2 % of the dose, so that the truth is known. The
result is one table for each data set, and one picture for each network.

Variants, joined by commas: `subset` trains CNN-10, DnCNN and U-Net on three kinds of
pairs in minutes; `smoke` takes seconds. `--config.compare.models="('nafnet',)"` and
`--config.compare.pairs="('v2','aligned')"` choose others.

docs/results.md has the table, its command and its seed.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs import ipv2_redcnn, quickstart

# Pairs as they are, the two methods, and IPv2 without each of its modules.
PUBLISHED = ("none", "v1", "v2", "no_background", "no_add", "no_remove")
# Narrow forms. Nothing was tuned.
ZOO = {
    "cnn10": {"model": {"name": "cnn10"}},
    "redcnn": {"model": {"name": "redcnn", "width": 24}},
    "dncnn": {"model": {"name": "dncnn", "width": 24, "depth": 17}},
    "unet": {"model": {"name": "unet", "width": 16, "levels": 3}},
    "nafnet": {
        "model": {
            "name": "nafnet",
            "width": 16,
            "encoder_blocks": (1, 1, 2),
            "middle_blocks": 2,
            "decoder_blocks": (1, 1, 1),
        },
    },
    "restormer": {
        "model": {
            "name": "restormer",
            "width": 16,
            "blocks": (1, 1),
            "heads": (1, 2),
            "refinement_blocks": 1,
        },
    },
    # A step of these is several times as expensive, so they take half as many patches.
    "fm": {
        "model": {"name": "fm", "width": 16, "multipliers": (1, 2)},
        "train": {"batch_size": 4, "patches_per_slice": 2},
    },
    "ffm": {
        "model": {"name": "ffm", "width": 16, "multipliers": (1, 2)},
        "train": {"batch_size": 4, "patches_per_slice": 2},
    },
}


def _subset(config: ConfigDict) -> None:
    config.compare.models = ("cnn10", "dncnn", "unet")
    config.compare.pairs = ("none", "v1", "v2")
    config.train.duration = "60 steps"
    config.evaluate.slices = 4


def _smoke(config: ConfigDict) -> None:
    ipv2_redcnn.VARIANTS["smoke"](config)
    config.compare.models = ("dncnn", "redcnn")
    config.compare.pairs = ("v2", "no_remove")
    config.compare.zoo.dncnn.model.update({"width": 8, "depth": 3})
    config.compare.zoo.redcnn.model.width = 8


VARIANTS: Variants = {"subset": _subset, "smoke": _smoke}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = quickstart.get_config()
    config.evaluate.batch_size = 2
    config.flow.steps = 4
    config.compare.pairs = PUBLISHED
    config.compare.models = tuple(ZOO)
    config.compare.zoo = ConfigDict(ZOO)
    return apply_variants(config, variant, VARIANTS)

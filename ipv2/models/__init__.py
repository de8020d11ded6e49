"""Denoisers, one linen network a file.

Every network takes (n, h, w, channels) in network units (`blocks.hu_to_unit`), of any
size, and returns float32 (n, h, w, 1): the slice in the middle, denoised. `channels` is
its attribute: 1, or an odd number of neighbouring slices. Called with `train=True` it
does what training needs (batch statistics, dropout). For tiles, its `radius` is the
number of pixels a result depends on beyond its own (None: the whole image), and tile
origins must be multiples of its `stride`.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from ipv2.models.blocks import hu_to_unit, unit_to_hu
from ipv2.models.cnn10 import CNN10
from ipv2.models.dncnn import DnCNN
from ipv2.models.nafnet import NAFNet
from ipv2.models.redcnn import REDCNN
from ipv2.models.restormer import Restormer
from ipv2.models.unet import UNet

MODELS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "cnn10": CNN10,
        "dncnn": DnCNN,
        "nafnet": NAFNet,
        "redcnn": REDCNN,
        "restormer": Restormer,
        "unet": UNet,
    }
)

__all__ = [
    "CNN10",
    "MODELS",
    "REDCNN",
    "DnCNN",
    "NAFNet",
    "Restormer",
    "UNet",
    "create_model",
    "hu_to_unit",
    "unit_to_hu",
]


def create_model(name: str, **attributes: Any) -> nn.Module:
    """The network called `name`, with the attributes that differ from its defaults.

    Raises:
      ValueError: On a name that is not in `MODELS`, or an attribute the network lacks.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; accepted: {sorted(MODELS)}")
    fields = {f.name for f in dataclasses.fields(MODELS[name])} - {"parent", "name"}
    unknown = sorted(set(attributes) - fields)
    if unknown:
        raise ValueError(f"{name} has no {unknown}; accepted: {sorted(fields)}")
    return MODELS[name](**attributes)

"""Denoisers, one linen network a file.

Every network takes (n, h, w, 1) in network units (`blocks.hu_to_unit`) and returns the
same, float32. Flow models (`FlowUNet`) also take a time for each image, and return a
velocity: `ipv2.flow` makes images of it.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from ipv2.models.blocks import hu_to_unit, unit_to_hu
from ipv2.models.cnn10 import CNN10
from ipv2.models.ffm import FFM
from ipv2.models.flow_unet import FlowUNet
from ipv2.models.fm import FM
from ipv2.models.redcnn import REDCNN

MODELS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"cnn10": CNN10, "ffm": FFM, "fm": FM, "redcnn": REDCNN}
)

__all__ = [
    "CNN10",
    "FFM",
    "FM",
    "MODELS",
    "REDCNN",
    "FlowUNet",
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

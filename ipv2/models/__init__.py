"""Denoisers, one linen network a file.

Every network takes (n, h, w, 1) in network units (`blocks.hu_to_unit`) and returns the
same, float32.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from ipv2.models.blocks import hu_to_unit, unit_to_hu
from ipv2.models.cnn10 import CNN10
from ipv2.models.redcnn import REDCNN

MODELS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"cnn10": CNN10, "redcnn": REDCNN}
)

# Those that give a velocity: see `ipv2.flow`.
FLOWS: frozenset[str] = frozenset()

__all__ = [
    "CNN10",
    "FLOWS",
    "MODELS",
    "REDCNN",
    "attributes_of",
    "create_model",
    "hu_to_unit",
    "unit_to_hu",
]


def attributes_of(name: str) -> frozenset[str]:
    """What can be set of the network called `name`."""
    fields = (field.name for field in dataclasses.fields(MODELS[name]))
    return frozenset(fields) - {"parent", "name"}


def create_model(name: str, **attributes: Any) -> nn.Module:
    """The network called `name`, with the attributes that differ from its defaults.

    Raises:
      ValueError: On a name that is not in `MODELS`, or an attribute the network lacks.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; accepted: {sorted(MODELS)}")
    known = attributes_of(name)
    unknown = sorted(set(attributes) - known)
    if unknown:
        raise ValueError(f"{name} has no {unknown}; accepted: {sorted(known)}")
    return MODELS[name](**attributes)

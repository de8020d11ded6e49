"""Denoisers, one linen network per file.

Every network takes images of any size, (n, h, w, channels) in network units (`units`).
Its attribute `channels` is 1, or an odd number of neighbouring slices.

- Regression networks return float32 (n, h, w, 1), the denoised middle slice.
- Flow networks (`FLOWS`) also take a time per image, and return the velocity of the
  whole stack; `ipv2.training.flow` integrates it.

`train=True` switches on batch statistics. For tiles, a result depends on at most
`radius` pixels around it (None: on the whole image), and tile origins must be multiples
of `stride`.

A user's own network has the name 'package.module:Class'; `README.md` has the rules.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from ipv2.models.blocks import hu_to_unit, unit_to_hu
from ipv2.models.cnn10 import CNN10
from ipv2.models.dncnn import DnCNN
from ipv2.models.ffm import FFM
from ipv2.models.flow_unet import FlowUNet
from ipv2.models.fm import FM
from ipv2.models.nafnet import NAFNet
from ipv2.models.own_network import (
    OWN_NAME,
    check_own_network,
    create_own_network,
    find_own_network,
    hash_code,
)
from ipv2.models.redcnn import REDCNN
from ipv2.models.restormer import Restormer
from ipv2.models.unet import UNet

MODELS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "cnn10": CNN10,
        "dncnn": DnCNN,
        "ffm": FFM,
        "fm": FM,
        "nafnet": NAFNet,
        "redcnn": REDCNN,
        "restormer": Restormer,
        "unet": UNet,
    }
)
FLOWS = frozenset({"ffm", "fm"})

__all__ = [
    "CNN10",
    "FFM",
    "FLOWS",
    "FM",
    "MODELS",
    "OWN_NAME",
    "REDCNN",
    "DnCNN",
    "FlowUNet",
    "NAFNet",
    "Restormer",
    "UNet",
    "attributes_of",
    "check_own_network",
    "create_model",
    "hash_code",
    "hu_to_unit",
    "unit_to_hu",
]


def attributes_of(name: str) -> frozenset[str]:
    """Returns the names of the attributes of the network called `name`.

    Raises:
      ValueError: The name is not in `MODELS`, and not that of an own network.
      UserError: The own network of that name cannot be imported.
    """
    fields = (field.name for field in dataclasses.fields(_find(name)))
    return frozenset(fields) - {"parent", "name"}


def create_model(name: str, **attributes: Any) -> nn.Module:
    """Returns the network called `name`, with the given attributes.

    Lists, which JSON makes from tuples, become tuples: networks must be hashable.

    Raises:
      ValueError: The name is not in `MODELS` and not that of an own network, or the
        network lacks an attribute.
      UserError: The own network of that name cannot be imported.
    """
    accepted = attributes_of(name)
    unknown = sorted(set(attributes) - accepted)
    if unknown:
        raise ValueError(f"{name} has no {unknown}; accepted: {sorted(accepted)}")
    hashable = {
        k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()
    }
    if name in MODELS:
        return MODELS[name](**hashable)
    return create_own_network(name, **hashable)


def _find(name: str) -> type[nn.Module]:
    if name in MODELS:
        return MODELS[name]
    if OWN_NAME.fullmatch(name):
        return find_own_network(name)
    raise ValueError(
        f"no model is called {name!r}; accepted: {sorted(MODELS)}, or an own one, "
        "'package.module:Class'"
    )

"""Denoisers, one linen network a file.

Every network takes (n, h, w, channels) in network units (`blocks.hu_to_unit`), of any
size. `channels` is its attribute: 1, or an odd number of neighbouring slices.

- Regression networks return float32 (n, h, w, 1): the slice in the middle, denoised.
- Flow networks (`FLOWS`) also take a time for each image, and return the velocity of
  the whole stack: `ipv2.training.flow` makes images of it.

Called with `train=True` they do what training needs (batch statistics, dropout). For
tiles, `radius` is the number of pixels a result depends on beyond its own (None: the
whole image), and tile origins must be multiples of `stride`.

A network of one's own is called 'package.module:Class'; see `README.md` for the rules.
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
    """What can be set of the network called `name`.

    Raises:
      ValueError: On a name that is not in `MODELS` and no own network's.
      UserError: The own network of that name cannot be had.
    """
    fields = (field.name for field in dataclasses.fields(_find(name)))
    return frozenset(fields) - {"parent", "name"}


def create_model(name: str, **attributes: Any) -> nn.Module:
    """The network called `name`, with the attributes that differ from its defaults.

    Lists, which JSON makes of tuples, become tuples: networks must be hashable.

    Raises:
      ValueError: On a name that is not in `MODELS` and no own network's, or an
        attribute the network lacks.
      UserError: The own network of that name cannot be had.
    """
    known = attributes_of(name)
    unknown = sorted(set(attributes) - known)
    if unknown:
        raise ValueError(f"{name} has no {unknown}; accepted: {sorted(known)}")
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

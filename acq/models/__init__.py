"""Classifiers, one family of linen networks a file.

Every network has the attributes `layers`, which makes its modules (`acq.layers`), and
`classes`; it takes (n, h, w, channels), normalised as its teacher's record says, and
returns logits (n, classes) and the features of its last convolutional stage. See
README.md for what a network of one's own must be.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from acq.layers import Layers
from acq.models.mobilenet import STAGES, MobileNetV2
from acq.models.resnet import ResNet
from acq.models.resnet_cifar import CifarResNet
from acq.models.vgg import VGG, VGG16
from common.errors import UserError

__all__ = [
    "NETWORKS",
    "VGG",
    "CifarResNet",
    "MobileNetV2",
    "Network",
    "ResNet",
    "create_network",
    "options_of",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What a name stands for.

    Attributes:
      module: The family.
      fixed: Attributes that the name determines.
      image_size: Side of the images the published weights are for.
      channels: Of these images.
      classes: Of these weights.
    """

    module: type[nn.Module]
    fixed: Mapping[str, Any]
    image_size: int
    channels: int = 3
    classes: int


def _cifar(depth: int) -> Network:
    return Network(
        module=CifarResNet, fixed={"depth": depth}, image_size=32, classes=10
    )


def _imagenet(module: type[nn.Module], **fixed: Any) -> Network:
    return Network(module=module, fixed=fixed, image_size=224, classes=1000)


def _basic_resnet(*stage_sizes: int) -> Network:
    return _imagenet(
        ResNet, stage_sizes=stage_sizes, bottleneck=False, stride_in_first=False
    )


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        **{f"resnet{depth}": _cifar(depth) for depth in (8, 20, 32, 44, 56)},
        "resnet18": _basic_resnet(2, 2, 2, 2),
        "resnet34": _basic_resnet(3, 4, 6, 3),
        "resnet50": _imagenet(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True),
        "mobilenet_v2": _imagenet(MobileNetV2, stages=STAGES),
        "vgg16_bn": _imagenet(VGG, stages=VGG16),
    }
)


def options_of(name: str) -> frozenset[str]:
    """What can be set of the network called `name`, beyond its layers and classes."""
    network = NETWORKS[name]
    fields = {field.name for field in dataclasses.fields(network.module)}
    return frozenset(
        fields - {"layers", "classes", "parent", "name"} - set(network.fixed)
    )


def create_network(
    name: str, layers: Layers, classes: int, **options: Any
) -> nn.Module:
    """The network called `name`.

    Args:
      name: One of `NETWORKS`.
      layers: Makes its modules.
      classes: Logits out.
      **options: Attributes that differ from the family's defaults.

    Raises:
      UserError: On an unknown name or option, or fewer than two classes.
    """
    if name not in NETWORKS:
        raise UserError(
            f"no network is called {name!r}; accepted: {', '.join(sorted(NETWORKS))}, "
            "or package.module:Class for one of your own"
        )
    unknown = sorted(set(options) - options_of(name))
    if unknown:
        raise UserError(
            f"{name} has no option {', '.join(unknown)}; accepted: "
            f"{', '.join(sorted(options_of(name)))}"
        )
    if classes < 2:
        raise UserError(f"{name} needs at least 2 classes, got {classes}")
    network = NETWORKS[name]
    return network.module(layers=layers, classes=classes, **network.fixed, **options)

"""Classifiers, with one family of linen networks in each file.

Every network has the attributes `layers`, which makes its modules (`acq.layers`), and
`classes`. It takes (n, h, w, channels), normalised as in its teacher's record, and
returns logits (n, classes) and the features of its last convolutional stage. README.md
lists the rules for your own network.
"""

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from acq.layers.float import Layers
from acq.models.efficientnet_lite import LITE0, EfficientNetLite
from acq.models.mobilenet import STAGES, MobileNetV2
from acq.models.resnet import ResNet
from acq.models.resnet_cifar import CifarResNet
from acq.models.vgg import VGG, VGG16
from common.errors import UserError

__all__ = [
    "ACCEPTED_NAMES",
    "CIFAR_DEPTHS",
    "NETWORKS",
    "VGG",
    "ZOO",
    "CifarResNet",
    "EfficientNetLite",
    "MobileNetV2",
    "Network",
    "ResNet",
    "cifar_resnet",
    "create_network",
    "find_network",
    "options_of",
]

CIFAR_DEPTHS = range(8, 1203, 6)
"""Depths of CIFAR ResNets: 6 n + 2."""

ZOO = (
    "resnet18, resnet34, resnet50, mobilenet_v2, efficientnet_lite0, vgg16_bn, a CIFAR "
    "ResNet of 6 n + 2 layers (resnet8, resnet14, resnet20, ..., resnet110, ..., "
    "cifar_resnet50)"
)
"""Names of our networks, for messages."""

ACCEPTED_NAMES = f"{ZOO}, or 'package.module:Class' for your own (acq/models/README.md)"
"""Accepted names of networks, for messages."""

# These have 6 n + 2 layers, but their names always mean ImageNet networks.
_IMAGENET_NAMES = frozenset({"resnet26", "resnet50", "resnet152", "resnet200"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A named network.

    Attributes:
      module: The family.
      fixed: Attributes that the name determines.
      image_size: Side of the images of the published weights.
      channels: Of these images.
      classes: Of these weights.
      aliases: Names of the same network in other libraries.
      others: Names there of networks that only look like it, with the same tensors.
    """

    module: type[nn.Module]
    fixed: Mapping[str, Any]
    image_size: int
    channels: int = 3
    classes: int
    aliases: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def _cifar(depth: int) -> Network:
    return Network(
        module=CifarResNet, fixed={"depth": depth}, image_size=32, classes=10
    )


def _imagenet(module: type[nn.Module], *aliases: str, **fixed: Any) -> Network:
    return Network(
        module=module, fixed=fixed, image_size=224, classes=1000, aliases=aliases
    )


def _basic_resnet(*stage_sizes: int) -> Network:
    return _imagenet(
        ResNet, stage_sizes=stage_sizes, bottleneck=False, stride_in_first=False
    )


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        **{f"resnet{depth}": _cifar(depth) for depth in (8, 20, 32, 44, 56)},
        "resnet18": _basic_resnet(2, 2, 2, 2),
        "resnet34": _basic_resnet(3, 4, 6, 3),
        "resnet50": _imagenet(
            ResNet, "resnet50b", stage_sizes=(3, 4, 6, 3), bottleneck=True
        ),
        "mobilenet_v2": _imagenet(
            MobileNetV2, "mobilenetv2", "mobilenetv2b", stages=STAGES
        ),
        "efficientnet_lite0": dataclasses.replace(
            _imagenet(EfficientNetLite, "tf_efficientnet_lite0", stages=LITE0),
            # timm's own, with PyTorch's padding and epsilon.
            others=("efficientnet_lite0", "efficientnet_lite0_ra"),
        ),
        "vgg16_bn": _imagenet(VGG, "bn_vgg16", "bn_vgg16b", stages=VGG16),
    }
)
"""Networks by name; `find_network` also finds CIFAR ResNets of other depths."""


def cifar_resnet(depth: int) -> str:
    """Returns the name of the CIFAR ResNet with one of `CIFAR_DEPTHS`."""
    name = f"resnet{depth}"
    return f"cifar_{name}" if name in _IMAGENET_NAMES else name


def find_network(name: str) -> Network | None:
    """Returns the network of a name; None if there is none."""
    if name in NETWORKS:
        return NETWORKS[name]
    if match := re.fullmatch(r"(?:cifar_)?resnet([1-9]\d{0,3})", name):
        depth = int(match[1])
        if depth in CIFAR_DEPTHS and cifar_resnet(depth) == name:
            return _cifar(depth)
    return None


def options_of(name: str) -> frozenset[str]:
    """Returns the attributes of a network that its name leaves open.

    Raises:
      UserError: No network has this name.
    """
    network = _named(name)
    fields = {field.name for field in dataclasses.fields(network.module)}
    return frozenset(
        fields - {"layers", "classes", "parent", "name"} - set(network.fixed)
    )


def create_network(
    name: str, layers: Layers, classes: int, **options: Any
) -> nn.Module:
    """Returns the network of a name.

    Args:
      name: As for `find_network`.
      layers: Makes its modules.
      classes: Number of logits.
      **options: Attributes that differ from the family's defaults.

    Raises:
      UserError: The name or an option is unknown, or there are fewer than two classes.
    """
    network = _named(name)
    unknown = sorted(set(options) - options_of(name))
    if unknown:
        raise UserError(
            f"{name} has no option {', '.join(unknown)}; accepted: "
            f"{', '.join(sorted(options_of(name)))}"
        )
    if classes < 2:
        raise UserError(f"{name} needs at least 2 classes, got {classes}")
    return network.module(layers=layers, classes=classes, **network.fixed, **options)


def _named(name: str) -> Network:
    network = find_network(name)
    if network is None:
        raise UserError(f"no network is called {name!r}; accepted: {ACCEPTED_NAMES}")
    return network

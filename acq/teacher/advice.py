"""Finds the network of a file's weights if they do not fit the configured network.

It names a network only if all tensors of the file fit it. So the config keys in the
message are accepted.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from acq.layers.float import FloatLayers
from acq.models import (
    CIFAR_DEPTHS,
    ZOO,
    CifarResNet,
    cifar_resnet,
    create_network,
    find_network,
)
from acq.teacher.own_network import create_own_network
from acq.teacher.settings import TeacherSettings
from acq.weights.names import naming_of
from common.typing import PyTree

_Tensors = Mapping[str, np.ndarray]

# A block of a stage: torchvision's `layer1.0.`, pytorchcv's `stage1.unit1.`, and ours.
_BLOCK = re.compile(r"\b(?:layer|stage)(\d+)[._](?:unit)?(\d+)[./]")
_PROJECTION = re.compile(r"downsample|shortcut\.0|identity_conv")
_HEAD = re.compile(
    r"(_?fc|linear|output|output\.fc3|head|head\.fc|out|classifier|classifier\.\d)\.weight"
)
_OUR_HEAD = re.compile(r"params[/.](linear|fc|classifier|classifier_6)[/.]kernel")
_STEM = re.compile(
    r"(conv1|_?conv_stem|features\.0(\.0|\.conv)?|features\.init_block(\.conv){1,2}"
    r"|features\.stage1\.unit1\.conv)\.weight"
)
_HIDDEN = re.compile(r"(classifier\.0|pre_logits\.fc1|output\.fc1\.fc)\.weight")
_IMAGENET: Mapping[tuple[int, ...], tuple[str, ...]] = {
    (2, 2, 2, 2): ("resnet18",),
    (3, 4, 6, 3): ("resnet34", "resnet50"),
}
_FEATURES = ("features.", "blocks.", "_blocks.")
# Names in pytorchcv's mobilenetv2_w1; the first identifies MobileNetV2.
_MOBILENET_W1 = {
    "features.final_block.conv.weight",
    "features.stage1.unit1.conv1.conv.weight",
}
# Channels of MobileNetV2's last depthwise convolution, with width_multiplier 1.
_WIDEST_DEPTHWISE = 960


def advice(tensors: _Tensors, settings: TeacherSettings) -> list[str]:
    """Returns lines for the message, with the config keys that would fit the file.

    Args:
      tensors: Of the file, named without wrapping modules.
      settings: Of the teacher, whose network does not fit.
    """
    channels = _channels(tensors) or len(settings.mean)
    # Used only for the user's own network.
    size = settings.image_size
    for options in _candidates(tensors, settings):
        like = _shapes(channels=channels, size=size, **options)
        if naming_of(tensors, like) is None:
            continue
        flags = [
            f"--config.teacher.{key}={value!r}"
            if value == ""
            else f"--config.teacher.{key}={value}"
            for key, value in _changes(options, settings)
        ]
        lines = [f"They are those of {options['name']}: give {' '.join(flags)}."]
        if channels != len(settings.mean):
            lines.append(
                f"Its images have {channels} channels: give --config.teacher.mean and "
                "--config.teacher.std as many numbers."
            )
        return lines if flags else lines[1:]
    return [
        *_notes(tensors),
        f"No network here has exactly these tensors: {ZOO}; of torchvision, timm, "
        "pytorchcv, akamaster's CIFAR ResNets, or by our own names "
        "(params/conv1/kernel). Give the weights of one of them, or your own network, "
        "as acq/models/README.md shows: --config.teacher.name=package.module:Class.",
    ]


def _candidates(
    tensors: _Tensors, settings: TeacherSettings
) -> Iterator[dict[str, Any]]:
    """Yields name, classes and options of networks that the file may belong to."""
    classes = _classes(tensors) or settings.classes or 1000
    if classes < 2:
        return
    stages = _stages(tensors)
    if len(stages) == 3 and (depth := 6 * stages[0] + 2) in CIFAR_DEPTHS:
        is_projected = any(_PROJECTION.search(name) for name in tensors)
        shortcut = "projection" if is_projected else "zero_pad"
        yield {"name": cifar_resnet(depth), "classes": classes, "shortcut": shortcut}
    for name in _IMAGENET.get(stages, ()):
        yield {"name": name, "classes": classes}
    if any(name.startswith(_FEATURES) for name in tensors):
        depthwise = [
            len(t) for t in tensors.values() if t.ndim == 4 and t.shape[1] == 1
        ]
        if depthwise:
            width = round(max(depthwise) / _WIDEST_DEPTHWISE, 3)
            yield {
                "name": "mobilenet_v2",
                "classes": classes,
                "width_multiplier": width,
            }
            yield {"name": "efficientnet_lite0", "classes": classes}
        hidden = _rows(_HIDDEN, tensors)
        if hidden:
            yield {"name": "vgg16_bn", "classes": classes, "hidden": hidden}
    if ":" in settings.name:
        yield {"name": settings.name, "classes": classes}


@functools.cache
def _shapes(
    *, name: str, classes: int, channels: int, size: int, **options: Any
) -> PyTree:
    network = find_network(name)
    module: nn.Module
    if network is None:
        module = create_own_network(name, classes)
    else:
        module = create_network(name, FloatLayers(), classes, **options)
        size = network.image_size
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), x)


def _changes(
    options: Mapping[str, Any], settings: TeacherSettings
) -> Iterator[tuple[str, Any]]:
    """Yields the keys of `config.teacher` to change for a network, with values."""
    name = options["name"]
    here, there = find_network(settings.name), find_network(name)
    if settings.network_name != name:
        if all(one is not None and one.module is CifarResNet for one in (here, there)):
            assert there is not None
            yield "depth", there.fixed["depth"]
        else:
            yield "name", name
            if settings.depth:
                yield "depth", 0
    if options["classes"] != (settings.classes or (there.classes if there else 0)):
        yield "classes", options["classes"]
    for key, default in (
        ("shortcut", "zero_pad"),
        ("width_multiplier", 1.0),
        ("hidden", 4096),
    ):
        needed, given = options.get(key), getattr(settings, key)
        if needed is None:
            if given:
                yield key, type(given)()
        elif needed != (given or default):
            yield key, needed


def _notes(tensors: _Tensors) -> list[str]:
    if _MOBILENET_W1 <= tensors.keys():
        return [
            "If this is pytorchcv's mobilenetv2_w1: it has one convolution more than "
            "MobileNetV2; pytorchcv's mobilenetv2b_w1 fits."
        ]
    return []


def _stages(tensors: _Tensors) -> tuple[int, ...]:
    """Returns the number of blocks of each residual stage."""
    blocks: dict[int, set[str]] = {}
    for name in tensors:
        if match := _BLOCK.search(name):
            blocks.setdefault(int(match[1]), set()).add(match[2])
    return tuple(len(blocks[stage]) for stage in sorted(blocks))


def _classes(tensors: _Tensors) -> int:
    kernels = [t for key, t in tensors.items() if _OUR_HEAD.fullmatch(key)]
    return kernels[0].shape[-1] if kernels else _rows(_HEAD, tensors)


def _rows(name: re.Pattern[str], tensors: _Tensors) -> int:
    # VGG's classifier.0 and .3 come before its last layer.
    found = [
        len(tensor)
        for key, tensor in sorted(tensors.items())
        if name.fullmatch(key) and tensor.ndim >= 2
    ]
    return found[-1] if found else 0


def _channels(tensors: _Tensors) -> int:
    found = [t.shape[1] for key, t in tensors.items() if _STEM.fullmatch(key)]
    return found[0] if found else 0

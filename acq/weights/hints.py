"""What to change where a file's weights are not those of the configured network."""

import re
from collections.abc import Mapping

import numpy as np

from acq.weights.foreign_names import HEADS

_Path = tuple[str, ...]
_Shapes = Mapping[_Path, tuple[int, ...]]

# Blocks of a stage: torchvision's `layer1.0.`, pytorchcv's `stage1.unit1.`, and ours.
_BLOCK = re.compile(r"(?:layer|stage)(\d+)[._](?:unit)?(\d+)[./]")
_HEAD = re.compile(
    r"^(fc|linear|output|output\.fc3|head\.fc|classifier|classifier\.\d)\.weight$"
)
_IMAGENET: Mapping[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
}


def hints(tensors: Mapping[str, np.ndarray], shapes: _Shapes) -> list[str]:
    """Returns lines for the message: what in the config would fit the file.

    Args:
      tensors: Of the file.
      shapes: Of the network's variables, by path.
    """
    ours = ["/".join(path) for path in shapes]
    found, wanted = _stages(tensors), _stages(ours)
    lines = []
    if found and wanted and found != wanted:
        lines.append(
            f"The file's network has {_words(found)}, this one {_words(wanted)}: "
            + _other_network(found, tensors, has_depth=len(wanted) == 3)
        )
    classes, here = _classes(tensors), _classes_here(shapes)
    if found == wanted and classes and here and classes != here:
        lines.append(
            f"The file's network tells {classes} classes apart: give "
            f"--config.teacher.classes={classes}, or weights for {here} classes."
        )
    has, needs = _has_projections(tensors), _has_projections(ours)
    if found == wanted and len(wanted) == 3 and has != needs:
        kind = "projection" if has else "zero_pad"
        lines.append(
            "The file's shortcuts are of the other kind: give "
            f"--config.teacher.shortcut={kind}."
        )
    if "features.stage1.unit1.conv1.conv.weight" in tensors:
        lines.append(
            "If this is pytorchcv's mobilenetv2_w1: it has one convolution more than "
            "MobileNetV2; its mobilenetv2b_w1 has not."
        )
    return lines or [
        "Give the weights of this network, or its --config.teacher.name. Names of "
        "torchvision, timm, pytorchcv and akamaster's CIFAR ResNets are known, and our "
        "own (params/conv1/kernel)."
    ]


def _stages(names: Mapping[str, np.ndarray] | list[str]) -> tuple[int, ...]:
    """Blocks of each residual stage, of names that have stages."""
    blocks: dict[int, set[str]] = {}
    for name in names:
        if match := _BLOCK.search(name):
            blocks.setdefault(int(match[1]), set()).add(match[2])
    return tuple(len(blocks[stage]) for stage in sorted(blocks))


def _words(stages: tuple[int, ...]) -> str:
    return "stages of " + ", ".join(map(str, stages)) + " blocks"


def _other_network(
    stages: tuple[int, ...], tensors: Mapping[str, np.ndarray], *, has_depth: bool
) -> str:
    """The key to change for another residual network."""
    if len(stages) == 3 and len(set(stages)) == 1:
        depth = 6 * stages[0] + 2
        key = f"depth={depth}" if has_depth else f"name=resnet{depth}"
        return f"it is a CIFAR ResNet; give --config.teacher.{key}."
    is_bottleneck = any("conv3." in name for name in tensors)
    name = _IMAGENET.get((stages, is_bottleneck))
    return f"give --config.teacher.name={name or 'that of its network'}."


def _classes(tensors: Mapping[str, np.ndarray]) -> int:
    heads = [len(t) for name, t in tensors.items() if _HEAD.match(name) and t.ndim >= 2]
    # VGG's classifier.0 and .3 come before its last layer.
    return heads[-1] if heads else 0


def _classes_here(shapes: _Shapes) -> int:
    heads = ("classifier_6", *HEADS)
    kernels = [shapes.get(("params", head, "kernel")) for head in heads]
    return next((shape[-1] for shape in kernels if shape), 0)


def _has_projections(names: Mapping[str, np.ndarray] | list[str]) -> bool:
    return any(
        re.search(r"downsample|shortcut\.0|identity_conv", name) for name in names
    )

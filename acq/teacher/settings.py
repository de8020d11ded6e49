"""What `config.teacher` may hold, and what it says of the teacher."""

import os
import re
from typing import Any

import flax.linen as nn

from acq.classifier import Normalisation, Record
from acq.layers.float import FloatLayers
from acq.models import (
    ACCEPTED_NAMES,
    CIFAR_DEPTHS,
    CifarResNet,
    cifar_resnet,
    create_network,
    find_network,
    options_of,
)
from acq.teacher.own_network import OWN_NAME, create_own_network
from common import config as c
from common.config import ConfigDict

OPTIONS = ("shortcut", "stride_in_first", "width_multiplier", "hidden")


def _name() -> c.Rule:
    return c.Rule(
        lambda v: (
            isinstance(v, str)
            and (find_network(v) is not None or OWN_NAME.fullmatch(v) is not None)
        ),
        ACCEPTED_NAMES,
    )


def _depth() -> c.Rule:
    first, last = CIFAR_DEPTHS[0], CIFAR_DEPTHS[-1]
    return c.Rule(
        lambda v: c.whole(0).accepts(v) and (v == 0 or v in CIFAR_DEPTHS),
        f"6 n + 2 layers, from {first} to {last}, or 0 for the name's",
    )


def _per_channel(number: c.Rule) -> c.Rule:
    return c.Rule(
        lambda v: isinstance(v, tuple) and all(map(number.accepts, v)),
        f"for each channel {number.words}, or () for what an export says",
    )


def _none_or(at_least: int) -> c.Rule:
    number = c.whole(at_least)
    return c.Rule(
        lambda v: number.accepts(v) or (v == 0 and c.whole(0).accepts(v)),
        f"a whole number, at least {at_least}, or 0 for the network's own",
    )


_SHA256 = c.Rule(
    lambda v: (
        isinstance(v, str)
        and (not v or re.fullmatch(r"[0-9a-fA-F]{64}", v) is not None)
    ),
    "64 hexadecimal digits, or '' for any file",
)

RULES = {
    "teacher.name": _name(),
    "teacher.depth": _depth(),
    "teacher.shortcut": c.one_of("", "zero_pad", "projection"),
    "teacher.stride_in_first": c.Rule(
        lambda v: v is None or isinstance(v, bool), "True or False"
    ),
    "teacher.width_multiplier": c.number(at_least=0),
    "teacher.hidden": c.whole(0),
    "teacher.classes": _none_or(2),
    "teacher.image_size": _none_or(8),
    "teacher.mean": _per_channel(c.number()),
    "teacher.std": _per_channel(c.number(above=0)),
    "teacher.weights": c.existing_path(),
    "teacher.hub_repo": c.text(),
    "teacher.hub_file": c.text(),
    "teacher.hub_revision": c.Rule(
        lambda v: isinstance(v, str) and v != "", "a commit, tag or branch"
    ),
    "teacher.hub_sha256": _SHA256,
    "teacher.sha256": _SHA256,
}
"""What each key of `config.teacher` accepts; 0, '', () and None leave it open."""


def teacher_problems(config: ConfigDict) -> list[str]:
    """Lists what does not fit together in `config.teacher`, a line each.

    Args:
      config: Its values are accepted by `RULES`.
    """
    teacher = config.teacher
    problems = []
    if len(teacher.mean) != len(teacher.std):
        problems.append(
            f"teacher.std: got {teacher.std}, accepted: as many numbers as "
            f"config.teacher.mean has ({len(teacher.mean)})"
        )
    problems += _scale_problems(tuple(teacher.mean), tuple(teacher.std))
    own = find_network(teacher.name)
    is_own = own is None
    if teacher.depth and (own is None or own.module is not CifarResNet):
        problems.append(
            f"teacher.depth: got {teacher.depth}, accepted: 0 for {teacher.name}, "
            "which is no CIFAR ResNet"
        )
    known = frozenset() if is_own else options_of(teacher.name)
    problems += [
        f"teacher.{key}: {teacher.name} has none; leave it {type(teacher[key])()!r}"
        for key in OPTIONS
        if teacher[key] and key not in known
    ]
    is_export = bool(teacher.weights) and os.path.isdir(teacher.weights)
    if is_own and not is_export:
        problems += [
            f"teacher.{key}: needed for a network of your own"
            for key in ("classes", "image_size")
            if not teacher[key]
        ]
    if not teacher.mean and not is_export:
        problems.append(
            "teacher.mean: needed with config.teacher.std, of images in [0, 1]: what "
            "the weights were trained with"
        )
    return problems


def _scale_problems(mean: tuple[float, ...], std: tuple[float, ...]) -> list[str]:
    """Lists what is of images in [0, 255], with its value of images in [0, 1]."""
    is_large = {"mean": any(m > 1 for m in mean), "std": any(s > 1 for s in std)}
    # A mean in 0..255 with a deviation of 1: nothing was divided by.
    is_large["std"] |= is_large["mean"] and any(s >= 1 for s in std)
    return [
        f"teacher.{key}: got {values}, accepted: of images in [0, 1], at most 1; "
        f"divide by 255: {tuple(float(f'{v / 255:.4g}') for v in values)}"
        for key, values in (("mean", mean), ("std", std))
        if is_large[key]
    ]


def network_name(config: ConfigDict) -> str:
    """The network's name, its depth taken into account."""
    teacher = config.teacher
    return cifar_resnet(teacher.depth) if teacher.depth else teacher.name


def network_options(config: ConfigDict) -> dict[str, Any]:
    """Attributes of the network that its name leaves open and the config sets."""
    return {key: config.teacher[key] for key in OPTIONS if config.teacher[key]}


def config_record(config: ConfigDict) -> Record:
    """The teacher's record as the config tells it, for weights from elsewhere.

    Args:
      config: It has no problems.
    """
    teacher = config.teacher
    name = network_name(config)
    own = find_network(name)
    return Record(
        name=name,
        options=network_options(config),
        classes=teacher.classes or (own.classes if own else 0),
        image_size=teacher.image_size or (own.image_size if own else 0),
        normalisation=Normalisation(mean=tuple(teacher.mean), std=tuple(teacher.std)),
    )


def create_teacher(record: Record) -> nn.Module:
    """The float network of a record.

    Raises:
      UserError: There is no such network.
    """
    if ":" in record.name:
        return create_own_network(record.name, record.classes)
    return create_network(record.name, FloatLayers(), record.classes, **record.options)

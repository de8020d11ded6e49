"""What `config.teacher` may hold, and what it says of the teacher."""

import os
import re
from typing import Any

import flax.linen as nn

from acq.classifier import Normalisation, Record
from acq.layers import FloatLayers
from acq.models import NETWORKS, CifarResNet, create_network, options_of
from acq.teacher.own_network import OWN_NAME, create_own_network
from common import config as c
from common.config import ConfigDict

_DEPTHS = tuple(
    network.fixed["depth"]
    for network in NETWORKS.values()
    if network.module is CifarResNet
)
_OPTIONS = ("shortcut", "stride_in_first")


def _name() -> c.Rule:
    return c.Rule(
        lambda v: (
            isinstance(v, str) and (v in NETWORKS or OWN_NAME.fullmatch(v) is not None)
        ),
        f"one of {', '.join(NETWORKS)}, or 'package.module:Class' for your own",
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
    "teacher.depth": c.one_of(0, *_DEPTHS),
    "teacher.shortcut": c.one_of("", "zero_pad", "projection"),
    "teacher.stride_in_first": c.boolean(),
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
"""What each key of `config.teacher` accepts; 0, '' and () leave it open."""


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
    is_own = ":" in teacher.name
    if teacher.depth and (is_own or NETWORKS[teacher.name].module is not CifarResNet):
        problems.append(
            f"teacher.depth: got {teacher.depth}, accepted: 0 for {teacher.name}, "
            "which is no CIFAR ResNet"
        )
    known = frozenset() if is_own else options_of(teacher.name)
    problems += [
        f"teacher.{key}: {teacher.name} has none; leave it {type(teacher[key])()!r}"
        for key in _OPTIONS
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


def network_name(config: ConfigDict) -> str:
    """The network's name, its depth taken into account."""
    teacher = config.teacher
    return f"resnet{teacher.depth}" if teacher.depth else teacher.name


def network_options(config: ConfigDict) -> dict[str, Any]:
    """Attributes of the network that its name leaves open and the config sets."""
    return {key: config.teacher[key] for key in _OPTIONS if config.teacher[key]}


def config_record(config: ConfigDict) -> Record:
    """The teacher's record as the config tells it, for weights from elsewhere.

    Args:
      config: It has no problems.
    """
    teacher = config.teacher
    name = network_name(config)
    own = NETWORKS.get(name)
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

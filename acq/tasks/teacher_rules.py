"""The values that `config.teacher` accepts."""

import os
import re

from acq.models import (
    ACCEPTED_NAMES,
    CIFAR_DEPTHS,
    CifarResNet,
    find_network,
    options_of,
)
from acq.teacher.own_network import OWN_NAME
from acq.teacher.settings import SOURCES, TeacherSettings, scale_problems
from common import config as c


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
    "teacher.source": c.one_of(*SOURCES),
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
    "teacher.weights_key": c.text(),
    "teacher.hub_repo": c.text(),
    "teacher.hub_file": c.text(),
    "teacher.hub_revision": c.Rule(
        lambda v: isinstance(v, str) and v != "", "a commit, tag or branch"
    ),
    "teacher.hub_sha256": _SHA256,
    "teacher.sha256": _SHA256,
}
"""Rules of the keys of `config.teacher`. 0, '', () and None leave a value open."""


def teacher_problems(teacher: TeacherSettings) -> list[str]:
    """Lists the values of `config.teacher` that do not fit together, a line each.

    Args:
      teacher: the settings of a config that `RULES` accepts.
    """
    problems = []
    if len(teacher.mean) != len(teacher.std):
        problems.append(
            f"teacher.std: got {teacher.std}, accepted: as many numbers as "
            f"config.teacher.mean has ({len(teacher.mean)})"
        )
    problems += scale_problems(teacher.mean, teacher.std)
    network = find_network(teacher.name)
    is_own = network is None
    if teacher.depth and (network is None or network.module is not CifarResNet):
        problems.append(
            f"teacher.depth: got {teacher.depth}, accepted: 0 for {teacher.name}, "
            "which is no CIFAR ResNet"
        )
    options = frozenset() if is_own else options_of(teacher.name)
    problems += [
        f"teacher.{key}: {teacher.name} has none; leave it {type(value)()!r}"
        for key, value in teacher.options.items()
        if key not in options
    ]
    is_export = bool(teacher.weights) and os.path.isdir(teacher.weights)
    if is_own and not is_export:
        problems += [
            f"teacher.{key}: needed for a network of your own"
            for key in ("classes", "image_size")
            if not getattr(teacher, key)
        ]
    if not teacher.mean and not is_export:
        problems.append(
            "teacher.mean: needed with config.teacher.std, of images in [0, 1]: what "
            "the weights were trained with"
        )
    return problems

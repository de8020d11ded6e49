"""Makes a classifier from a module or a name, and variables in memory."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.core
import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from acq.classifier import Classifier, Normalisation, Record
from acq.layers.float import FloatLayers
from acq.models import ZOO, create_network, find_network
from acq.teacher.own_network import check_network
from acq.teacher.settings import scale_problems
from acq.weights.statistics import check_statistics
from common.errors import UserError
from common.typing import PyTree

_NOT_OPTIONS = ("layers", "classes", "parent", "name")
_MOST_NAMED = 5


def refuse_arguments(problems: Sequence[str]) -> None:
    """Raises UserError with every problem of the arguments, if there are any."""
    if problems:
        raise UserError("cannot quantize:\n  " + "\n  ".join(problems))


def given_classifier(
    network: nn.Module | str,
    variables: PyTree,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: int | None = None,
    image_size: int | None = None,
) -> Classifier:
    """Returns a classifier, after a check that it can be quantized.

    Args:
      network: a linen module, or the name of one of `acq.models`.
      variables: its `params` and `batch_stats`.
      mean: per channel, of the images in [0, 1].
      std: per channel, above 0.
      classes: number of logits, if `network` is a name; None for that of the published
        weights.
      image_size: side of the images in pixels; None for that of the named network.

    Raises:
      UserError: an argument is not accepted, or the network cannot be quantized.
    """
    normalisation = _normalisation(mean, std)
    if isinstance(network, str):
        record = _zoo_record(network, classes, image_size, normalisation)
        module = create_network(network, FloatLayers(), record.classes)
    else:
        record = _module_record(network, classes, image_size, normalisation)
        module = network.clone(layers=FloatLayers())
    like = check_network(
        module, record.image_shape(1), record.classes, name=record.name
    )
    found = _checked_variables(variables, like, record.name)
    return Classifier(network=module, variables=found, record=record)


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    means, stds = (tuple(map(float, numbers)) for numbers in (mean, std))
    if len(means) != len(stds) or not means or not all(s > 0 for s in stds):
        refuse_arguments(
            [
                f"mean, std: got {means} and {stds}, accepted: one number per channel "
                "each, std above 0"
            ]
        )
    refuse_arguments(
        [line.removeprefix("teacher.") for line in scale_problems(means, stds)]
    )
    return Normalisation(mean=means, std=stds)


def _zoo_record(
    name: str,
    classes: int | None,
    image_size: int | None,
    normalisation: Normalisation,
) -> Record:
    known = find_network(name)
    if known is None:
        raise UserError(
            f"network: got {name!r}, accepted: {ZOO}, or a linen module "
            "(acq/models/README.md)"
        )
    return Record(
        name=name,
        classes=classes or known.classes,
        image_size=image_size or known.image_size,
        normalisation=normalisation,
    )


def _module_record(
    network: nn.Module,
    classes: int | None,
    image_size: int | None,
    normalisation: Normalisation,
) -> Record:
    kind = type(network)
    fields = {field.name: field for field in dataclasses.fields(network)}
    if not {"layers", "classes"} <= fields.keys():
        raise UserError(
            f"network: {kind.__name__} has no attributes layers and classes, which a "
            "network of your own needs (acq/models/README.md)"
        )
    own_classes = getattr(network, "classes")  # noqa: B009
    if classes is not None and classes != own_classes:
        refuse_arguments(
            [f"classes: got {classes}, the module has {own_classes}; leave it out"]
        )
    if image_size is None:
        refuse_arguments(
            ["image_size: needed for a module: the side of its images in pixels"]
        )
    options = {
        name: getattr(network, name)
        for name, field in fields.items()
        if name not in _NOT_OPTIONS and getattr(network, name) != field.default
    }
    return Record(
        name=f"{kind.__module__}:{kind.__name__}",
        options=options,
        classes=own_classes,
        image_size=image_size or 0,
        normalisation=normalisation,
    )


def _checked_variables(variables: PyTree, like: PyTree, name: str) -> PyTree:
    """Returns the variables as float32 on the host, after a check of their shapes."""
    given = flax.core.unfreeze(variables)
    found = {path: np.asarray(leaf) for path, leaf in flatten_dict(given).items()}
    like_leaves: dict[Any, Any] = flatten_dict(like)
    expected = {path: leaf.shape for path, leaf in like_leaves.items()}
    shapes = {path: leaf.shape for path, leaf in found.items()}
    differing = [
        f"{'/'.join(path)}: got {shapes.get(path, 'nothing')}, the network has "
        f"{expected.get(path, 'nothing')}"
        for path in sorted(expected.keys() | shapes.keys())
        if expected.get(path) != shapes.get(path)
    ]
    if differing:
        more = len(differing) - _MOST_NAMED
        raise UserError(
            f"variables: not those of {name}:\n  "
            + "\n  ".join(differing[:_MOST_NAMED])
            + (f"\n  and {more} more" if more > 0 else "")
            + "\nGive {'params': ..., 'batch_stats': ...} as its init makes them."
        )
    names = {path: "/".join(path) for path in found}
    check_statistics(found, names, source="variables")
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), dict(given))

"""What a network must be to be quantized, and networks that are not ours.

The rules, with an example, are in `acq/models/README.md`; `check_network` holds them,
by shapes alone.
"""

import dataclasses
import importlib
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors

from acq.layers import Activation, Conv, Dense, FloatLayers
from common.errors import UserError
from common.typing import PyTree

OWN_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def create_own_network(name: str, classes: int) -> nn.Module:
    """Returns the float network called 'package.module:Class'.

    Raises:
      UserError: There is none, or it is not made as it must be.
    """
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"config.teacher.name: got {name!r}, but no module {error.name!r} can be "
            "imported. Its folder must be on PYTHONPATH."
        ) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        there = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, nn.Module)
        ]
        raise UserError(
            f"config.teacher.name: {module_name} has no linen module {class_name!r}; "
            f"it has {', '.join(there) or 'none'}"
        )
    fields = {field.name: field for field in dataclasses.fields(found)}
    needed = {"layers", "classes"}
    without_default = {
        key
        for key, field in fields.items()
        if field.default is field.default_factory is dataclasses.MISSING
        and key not in needed
    }
    if not needed <= fields.keys() or without_default:
        raise UserError(
            f"config.teacher.name: {name} must have the attributes layers and classes, "
            f"and defaults for all others; it has {', '.join(sorted(fields))}. See "
            "acq/models/README.md."
        )
    return found(layers=FloatLayers(), classes=classes)  # pyrefly: ignore


def check_network(
    network: nn.Module,
    image_shape: tuple[int, int, int, int],
    classes: int,
    *,
    name: str,
) -> PyTree:
    """Returns the shapes of a network's variables, after checking what it is.

    Args:
      network: Built of `FloatLayers`.
      image_shape: Of a batch, NHWC.
      classes: Logits it must return.
      name: Of the network, for the message.

    Raises:
      UserError: It has no batch normalisation, returns something else than logits and
        features, or has kernels that `layers` did not make.
    """
    x = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    made = _Made()
    try:
        with nn.intercept_methods(made.note):
            outputs, variables = jax.eval_shape(
                network.init_with_output, jax.random.key(0), x
            )
    except (TypeError, ValueError, errors.FlaxError) as error:
        raise UserError(
            f"{name} cannot be applied to images of {image_shape[1:]}: "
            f"{str(error).strip().partition(chr(10))[0]}. See acq/models/README.md for "
            "what a network must be."
        ) from error
    problems = [
        *_output_problems(outputs, image_shape[0], classes),
        *_variable_problems(variables, made),
    ]
    if problems:
        raise UserError(
            f"{name} cannot be quantized:\n  "
            + "\n  ".join(problems)
            + "\nSee acq/models/README.md for what a network must be."
        )
    _check_statistics(network, variables, x, name)
    return variables


class _Made:
    """Notes which modules of ours a network calls, by their path."""

    def __init__(self) -> None:
        self.kernels: set[tuple[str, ...]] = set()
        self.activations = 0

    def note(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, Conv | Dense):
            self.kernels.add(module.path)
        self.activations += isinstance(module, Activation) and module.kind != "identity"
        return call(*args, **kwargs)


def _output_problems(outputs: Any, count: int, classes: int) -> list[str]:
    wanted = (
        f"it must return logits ({count}, {classes}) and features ({count}, h, w, c)"
    )
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        return [f"{wanted}, got a {type(outputs).__name__}"]
    shapes = [getattr(output, "shape", ()) for output in outputs]
    is_right = (
        shapes[0] == (count, classes) and len(shapes[1]) == 4 and shapes[1][0] == count
    )
    return [] if is_right else [f"{wanted}, got {shapes[0]} and {shapes[1]}"]


def _variable_problems(variables: PyTree, made: _Made) -> list[str]:
    problems = []
    if not jax.tree.leaves(variables.get("batch_stats", {})):
        problems.append(
            "it has no batch normalisation, whose statistics are all that stands in "
            "for the data"
        )
    if others := set(variables) - {"params", "batch_stats"}:
        problems.append(f"it has variables other than these: {', '.join(others)}")
    leaves = jax.tree_util.tree_leaves_with_path(variables.get("params", {}))
    paths = [tuple(key.key for key in path) for path, _ in leaves]
    strange = [
        "/".join(path)
        for path in paths
        if path[-1] == "kernel" and path[:-1] not in made.kernels
    ]
    if strange:
        problems.append(
            f"layers.conv or layers.dense did not make {', '.join(strange[:3])}"
            + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
        )
    if not made.kernels or not made.activations:
        problems.append("it has no convolution, or no activation, made by its layers")
    return problems


def _check_statistics(
    network: nn.Module, variables: PyTree, x: jax.ShapeDtypeStruct, name: str
) -> None:
    """Refuses a network whose batch normalisation is not that of `layers`."""
    # Two images: one has no variance where the last features are a single position.
    x = jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
    try:
        _, changed = jax.eval_shape(
            lambda v, x: network.apply(
                v, x, True, mutable=["batch_stats", "bn_inputs"]
            ),
            variables,
            x,
        )
    except TypeError as error:
        raise UserError(
            f"{name} must take a second argument, train: {error}. See "
            "acq/models/README.md for what a network must be."
        ) from error
    found = jax.tree.structure(changed.get("bn_inputs", {}))
    if found != jax.tree.structure(variables["batch_stats"]):
        raise UserError(
            f"{name} cannot be quantized:\n  layers.batch_norm did not make all of its "
            "batch normalisation\nSee acq/models/README.md for what a network must be."
        )

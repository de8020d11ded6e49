"""Creates the user's own network, and checks the rules for networks.

The rules, with an example, are in `acq/models/README.md`. `check_network` checks them
from shapes alone. Errors of the user's code are reported with file and line.
"""

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging
from flax import errors

from acq.layers.float import FloatLayers
from acq.teacher.network_flow import trace_flow
from acq.teacher.network_rules import (
    SEE,
    Made,
    output_problems,
    refuse,
    some,
    variable_problems,
)
from common.errors import UserError
from common.own_code import OwnCode, first_line, import_own_module
from common.typing import PyTree

OWN_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def create_own_network(name: str, classes: int, **options: Any) -> nn.Module:
    """Returns the float network 'package.module:Class'.

    Args:
      name: Import path of the class.
      classes: Number of logits.
      **options: Other attributes that differ from the class's defaults.

    Raises:
      UserError: The class does not exist, lacks attributes or defaults, or its code
        raises.
    """
    module_name, _, class_name = name.partition(":")
    module = import_own_module(module_name, "config.teacher.name")
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        existing = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, nn.Module)
        ]
        raise UserError(
            f"config.teacher.name: {module_name} has no linen module {class_name!r}; "
            f"it has {', '.join(existing) or 'none'}"
        )
    fields = {field.name: field for field in dataclasses.fields(found)}
    needed = {"layers", "classes"}
    without_default = {
        key
        for key, field in fields.items()
        if field.default is field.default_factory is dataclasses.MISSING
        and key not in needed | options.keys()
    }
    if not needed <= fields.keys() or without_default:
        raise UserError(
            f"config.teacher.name: {name} must have the attributes layers and classes, "
            f"and defaults for all others; it has {', '.join(sorted(fields))}. See "
            "acq/models/README.md."
        )
    does = f"config.teacher.name: {name} cannot be made"
    with OwnCode(does, SEE, module=module_name):
        return found(layers=FloatLayers(), classes=classes, **options)  # pyrefly: ignore


def with_its_line(name: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which errors of a network's code end with file and line.

    `check_network` finds most of them before a run. Others depend on values that only a
    run has, such as its batch size.

    Args:
      name: Of the network; one of ours needs no context.
    """
    if module := _module_of(name):
        return OwnCode(f"{name} fails in this run", SEE, module=module)
    return contextlib.nullcontext()


def _module_of(name: str) -> str:
    """Returns the import path of a network's module; '' for a name of ours."""
    return name.partition(":")[0] if OWN_NAME.fullmatch(name) else ""


def check_network(
    network: nn.Module,
    image_shape: tuple[int, int, int, int],
    classes: int,
    *,
    name: str,
) -> PyTree:
    """Returns the shapes of a network's variables, after a check of the rules.

    Args:
      network: Made with `FloatLayers`.
      image_shape: Of a batch, NHWC.
      classes: Number of logits that it must return.
      name: Of the network, for the message.

    Raises:
      UserError: It breaks a rule of `acq/models/README.md`, or its code raises.
    """
    x = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    _check_signature(network, x, name)
    made = Made(_module_of(name))
    key = jax.eval_shape(lambda: jax.random.key(0))
    outputs, variables = _apply(made, network.init_with_output, key, x, name=name)
    refuse(
        name,
        [
            *output_problems(outputs, image_shape[0], classes),
            *variable_problems(variables, made),
            *made.norm_problems(train=False),
        ],
    )
    _check_training(network, variables, x, name)
    flow = trace_flow(network, variables, x)
    refuse(
        name,
        [
            f"{layer}: its input goes through {', '.join(by)} outside of layers, an "
            "activation that would stay float: make it with layers.activation"
            for layer, by in flow.bent.items()
        ],
    )
    if flow.without_norm:
        logging.warning(
            "%s: no batch normalisation takes the output of %s: without images "
            "nothing is known about it",
            name, some(flow.without_norm),
        )  # fmt: skip
    return variables


def _apply(made: Made, apply: Callable[..., Any], *given: Any, name: str) -> Any:
    """Returns the shapes of a pass's results, and records the modules that it calls.

    Args:
      made: Records the modules.
      apply: The pass.
      *given: Shapes of its arguments; the last one is that of the images.
      name: Of the network, for the message.

    Raises:
      UserError: The network raises, or has dropout.
    """
    does = f"{name} cannot be applied to images of {given[-1].shape[1:]}"
    try:
        code = OwnCode(does, SEE, module=_module_of(name))
        with code, nn.intercept_methods(made.note):
            return jax.eval_shape(apply, *given)
    except UserError:
        raise
    except (TypeError, ValueError, errors.FlaxError) as error:
        raise UserError(f"{does}: {first_line(error)}. {SEE}") from error
    finally:
        # This error replaces that of the random stream that dropout lacks.
        made.refuse_dropout(name)


def _check_signature(network: nn.Module, x: jax.ShapeDtypeStruct, name: str) -> None:
    try:
        inspect.signature(type(network).__call__).bind(network, x, True)
    except TypeError as error:
        raise UserError(
            f"{name} must take a second argument, train: {error}. {SEE}"
        ) from error


def _check_training(
    network: nn.Module, variables: PyTree, x: jax.ShapeDtypeStruct, name: str
) -> None:
    """Refuses batch normalisation that `layers` did not make or that lacks `train`."""
    made = Made(_module_of(name))

    def apply(variables: PyTree, x: jax.Array) -> Any:
        return network.apply(variables, x, True, mutable=["batch_stats", "bn_inputs"])

    # Two images, because one has no variance if the features are a single position.
    pair = jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
    _, changed = _apply(made, apply, variables, pair, name=name)
    problems = made.norm_problems(train=True)
    found = jax.tree.structure(changed.get("bn_inputs", {}))
    if found != jax.tree.structure(variables["batch_stats"]):
        problems.append("layers.batch_norm did not make all of its batch normalisation")
    refuse(name, problems)

"""Users' own networks, named 'package.module:Class'.

`ipv2/models/README.md` has the rules, with an example. `check_own_network` checks them
by shapes alone. Messages for errors in a network's code name its file and line.
"""

import dataclasses
import hashlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors

from common.errors import UserError
from common.own_code import OwnCode, first_line, import_own_module

OWN_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

_KEY = "config.model.name"
_SEE = "See ipv2/models/README.md for what a network must be."
_NEEDED = ("channels", "dtype")
# Two sizes, one of them odd: a network must take images of any size.
_SIZES = ((2, 64, 64), (1, 61, 47))


def find_own_network(name: str) -> type[nn.Module]:
    """Returns the class called 'package.module:Class'.

    Raises:
      UserError: There is no such class, it lacks a required attribute, or its code
        raises.
    """
    module_name, _, class_name = name.partition(":")
    module = import_own_module(module_name, _KEY)
    found = getattr(module, class_name, None)
    if not _is_network(found):
        networks = [key for key, value in vars(module).items() if _is_network(value)]
        raise UserError(
            f"{_KEY}: {module_name} has no linen module {class_name!r}; it has "
            f"{', '.join(networks) or 'none'}"
        )
    fields = {field.name: field for field in dataclasses.fields(found)}
    lacking = [key for key in _NEEDED if key not in fields]
    lacking += [key for key in ("radius", "stride") if not hasattr(found, key)]
    if lacking:
        raise UserError(f"{_KEY}: {name} lacks {', '.join(lacking)}. {_SEE}")
    without_default = [
        key
        for key, field in fields.items()
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    if without_default:
        raise UserError(
            f"{_KEY}: {name} must have a default for every attribute; "
            f"{', '.join(without_default)} has none. {_SEE}"
        )
    return found


def create_own_network(name: str, **attributes: Any) -> nn.Module:
    """Returns the network called 'package.module:Class', with these attributes.

    Raises:
      UserError: See `find_own_network`; or the network's code raises.
    """
    own = find_own_network(name)
    with OwnCode(f"{name} cannot be made", _SEE):
        return own(**attributes)


def hash_code(name: str) -> str | None:
    """Returns the SHA-256 of the file of an own network's class.

    Args:
      name: 'package.module:Class', or a name of `MODELS`.

    Returns:
      None for networks of `MODELS`, and for a class without a file, as in a notebook.

    Raises:
      UserError: See `find_own_network`.
    """
    if not OWN_NAME.fullmatch(name):
        return None
    file = getattr(sys.modules[find_own_network(name).__module__], "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def check_own_network(network: nn.Module, name: str) -> None:
    """Checks that a network keeps the rules, without computing anything.

    Args:
      network: a user's own network.
      name: name for messages.

    Raises:
      UserError: The network breaks a rule, or its code raises.
    """
    problems = _attribute_problems(network, name)
    for size in () if problems else _SIZES:
        problems += _call_problems(network, name, size)
    if problems:
        lines = "\n  ".join(dict.fromkeys(problems))
        raise UserError(f"{name} cannot be trained:\n  {lines}\n{_SEE}")


def _is_network(value: object) -> TypeGuard[type[nn.Module]]:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _attribute_problems(network: Any, name: str) -> list[str]:
    with OwnCode(f"{name} cannot say its radius and stride", _SEE):
        radius, stride = network.radius, network.stride
    problems = []
    if radius is not None and not (isinstance(radius, int) and radius >= 0):
        problems.append(f"radius must be pixels, 0 or more, or None; got {radius!r}")
    if not (isinstance(stride, int) and stride >= 1):
        problems.append(f"stride must be pixels, 1 or more; got {stride!r}")
    return problems


def _call_problems(network: Any, name: str, size: tuple[int, int, int]) -> list[str]:
    """What is wrong with calls on images of a size, in training and after it."""
    x = jax.ShapeDtypeStruct((*size, network.channels), jnp.float32)
    does = f"{name} cannot be applied to images of shape {x.shape}"
    try:
        inspect.signature(type(network).__call__).bind(network, x, train=True)
    except TypeError as error:
        return [f"it must take a keyword, train: {error}"]

    def train(variables: Any, x: jax.Array) -> Any:
        return network.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        with OwnCode(does, _SEE):
            variables = jax.eval_shape(network.init, key, x)
            outputs = {
                "": jax.eval_shape(network.apply, variables, x),
                ", with train=True,": jax.eval_shape(train, variables, x),
            }
    except UserError:
        raise
    except (TypeError, ValueError, errors.FlaxError) as error:
        raise UserError(f"{does}: {first_line(error)}. {_SEE}") from error
    problems = []
    if others := set(variables) - {"params", "batch_stats"}:
        problems.append(f"it has variables other than these: {', '.join(others)}")
    if not jax.tree.leaves(variables.get("params", {})):
        problems.append("it has no parameters")
    wanted = (*size, 1)
    for when, output in outputs.items():
        shape = getattr(output, "shape", type(output).__name__)
        dtype = getattr(output, "dtype", None)
        if shape != wanted or dtype != jnp.float32:
            problems.append(
                f"of images {x.shape} it must{when} return float32 {wanted}, the slice "
                f"in the middle; got {dtype or ''} {shape}".replace("  ", " ")
            )
    return problems

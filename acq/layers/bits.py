"""Bits of single layers: parses a config's value and finds the layers it names.

Layers have the names of their variables: `conv1`, `layer1_0/conv2`. For a convolution
or dense layer the bits are those of its weights, for a quantized activation those of
its output. Each has its own name, so an activation that feeds several layers has one
number of bits.

The order in which a network calls its layers decides which are first and last: the
first convolution, the last dense layer, and the activation called just before each of
them, if it is quantized. That activation feeds the layer, directly or pooled.
"""

import ast
import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.kernels.grid import MAX_BITS, MIN_BITS, Grid
from acq.layers.float import Activation, Conv, Dense
from common.errors import UserError

LayerBits = tuple[tuple[str, int], ...]
"""Names and bits of the layers that differ from the rest."""

BITS_WORDS = (
    "'' or a dictionary in quotes, from names or patterns of layers, each once, to "
    f"bits, whole numbers from {MIN_BITS} to {MAX_BITS}, such as "
    "\"{'conv1': 8, 'fc': 8}\""
)

LayerKind = Literal["conv", "dense", "rectifier", "other"]
_WEIGHTED = ("conv", "dense")
_ACTIVATIONS = ("rectifier", "other")


class Layer(NamedTuple):
    """A layer that a network calls.

    Attributes:
      name: its path, parts joined by '/'.
      kind: 'other' is an "identity" activation.
    """

    name: str
    kind: LayerKind


def parse_layers(text: str) -> dict[str, int]:
    """Returns {name or pattern: bits} from the text of a dictionary; '' is empty.

    Raises:
      ValueError: the text is no such dictionary, has a name twice, or bits out of
        range.
    """
    if not text:
        return {}
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"not a dictionary: {text!r}") from error
    if not isinstance(body, ast.Dict) or None in body.keys:
        raise ValueError(f"not a dictionary: {text!r}")
    names, bits = (
        [ast.literal_eval(node) for node in nodes if node is not None]
        for nodes in (body.keys, body.values)
    )
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"names must be texts, got {names}")
    if len(set(names)) < len(names):
        raise ValueError(f"a name twice: {names}")
    if not all(type(n) is int and MIN_BITS <= n <= MAX_BITS for n in bits):
        raise ValueError(f"bits from {MIN_BITS} to {MAX_BITS}, got {bits}")
    return dict(zip(names, bits, strict=True))


@functools.cache
def called_layers(
    network: nn.Module, image_shape: tuple[int, int, int, int]
) -> tuple[Layer, ...]:
    """Returns a network's layers in the order of their calls, from shapes alone.

    A layer that the network calls twice is in the result twice.

    Args:
      network: made with `FloatLayers`.
      image_shape: NHWC.
    """
    found: list[Layer] = []

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        kind = _kind(context.module)
        if kind is not None and context.method_name == "__call__":
            found.append(Layer("/".join(context.module.path), kind))
        return call(*args, **kwargs)

    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(network.init, jax.random.key(0), image)
    return tuple(found)


def input_activation(layers: tuple[Layer, ...]) -> str | None:
    """Returns the name of the "identity" activation that images reach first, if any.

    Args:
      layers: of `called_layers`.
    """
    return layers[0].name if layers and layers[0].kind == "other" else None


def _kind(module: nn.Module) -> LayerKind | None:
    match module:
        case Conv():
            return "conv"
        case Dense():
            return "dense"
        case Activation():
            return "other" if module.kind == "identity" else "rectifier"
    return None


def choose_bits(
    requested: Mapping[str, int],
    first_last: int,
    layers: tuple[Layer, ...],
    *,
    others: bool,
) -> LayerBits:
    """Returns the bits of the layers that differ from the rest.

    Args:
      requested: {name or pattern: bits}; the last match counts, and overrides
        `first_last`.
      first_last: bits of the first and last layer; 0 for none.
      layers: of the network, in the order of their calls.
      others: whether "identity" activations are quantized.

    Raises:
      UserError: a pattern matches no layer that is quantized.
    """
    quantized = [layer for layer in layers if others or layer.kind != "other"]
    ends = _ends(layers) if first_last else set()
    chosen = {layer.name: first_last for layer in quantized if layer.name in ends}
    for pattern, bits in requested.items():
        matched = _matching(pattern, quantized)
        if not matched:
            raise UserError(_no_match(pattern, layers, quantized))
        chosen |= dict.fromkeys(matched, bits)
    return tuple(sorted(chosen.items()))


def _matching(pattern: str, layers: Iterable[Layer]) -> list[str]:
    names = (layer.name for layer in layers)
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _ends(layers: tuple[Layer, ...]) -> set[str]:
    """Returns names of the first and last layer, and of the activations before them."""
    weighted = [i for i, layer in enumerate(layers) if layer.kind in _WEIGHTED]
    convs = [i for i in weighted if layers[i].kind == "conv"]
    denses = [i for i in weighted if layers[i].kind == "dense"]
    found = set()
    for end in ((convs or weighted)[0], (denses or weighted)[-1]):
        before = [layer for layer in layers[:end] if layer.kind in _ACTIVATIONS]
        found |= {layer.name for layer in (layers[end], *before[-1:])}
    return found


def _no_match(pattern: str, layers: tuple[Layer, ...], quantized: list[Layer]) -> str:
    floats = _matching(pattern, layers)
    if floats:
        return (
            f"config.quantizer.layers: got {pattern!r}, which matches only layers "
            f"that stay float ({', '.join(floats)}): give config.quantizer.other_bits "
            "too, or leave this pattern out"
        )
    weights, activations = (
        ", ".join(dict.fromkeys(x.name for x in quantized if x.kind in kinds))
        for kinds in (_WEIGHTED, _ACTIVATIONS)
    )
    return (
        f"config.quantizer.layers: got {pattern!r}, which matches no layer; accepted: "
        f"names, or patterns such as '*/conv1', of weights: {weights}; of activations: "
        f"{activations}"
    )


def own_grid(module: nn.Module, grid: Grid, bits: LayerBits) -> Grid:
    """Returns the grid of a bound module: `grid`, with the module's bits if given."""
    own = dict(bits).get("/".join(module.path))
    return grid if own is None else dataclasses.replace(grid, bits=own)


def all_bits(
    layers: tuple[Layer, ...],
    bits: LayerBits,
    *,
    weights: int,
    activations: int,
    others: int | None,
) -> dict[str, dict[str, int]]:
    """Returns the bits of every layer: {'weights', 'activations', 'others': {name: n}}.

    Args:
      layers: of the network.
      bits: of the layers that differ.
      weights: of all other convolutions and dense layers.
      activations: of all other rectifiers.
      others: of all other "identity" activations; None leaves these out.
    """
    own = dict(bits)
    groups = {
        "weights": (_WEIGHTED, weights),
        "activations": (("rectifier",), activations),
        "others": (("other",), others),
    }
    return {
        group: {
            layer.name: own.get(layer.name, usual)
            for layer in layers
            if layer.kind in kinds and usual is not None
        }
        for group, (kinds, usual) in groups.items()
    }

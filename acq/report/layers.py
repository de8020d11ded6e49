"""Ranges and sizes of the layers of a network of integers, read from what it stores."""

import dataclasses
from typing import Literal

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from acq.export import QuantizedNetwork
from acq.kernels.grid import Grid
from acq.layers.bits import all_bits, called_layers
from acq.layers.float import FloatLayers
from acq.layers.integer import IntegerLayers
from common.typing import PyTree

_FLOAT_BYTES = 4
_KINDS = {
    "conv": "convolution",
    "dense": "dense",
    "rectifier": "activation",
    "other": "other tensor",
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """A kernel of integers.

    Attributes:
      name: of its layer.
      kind: `convolution` or `dense`.
      bits: of a weight.
      low: smallest weight of each output channel.
      high: largest weight of each output channel.
      scale: of each output channel.
      count: weights.
      stored_bytes: of the codes, of which each has a byte of its own.
    """

    name: str
    kind: str
    bits: int
    low: Float[np.ndarray, "c"]
    high: Float[np.ndarray, "c"]
    scale: Float[np.ndarray, "c"]
    count: int
    stored_bytes: int

    @property
    def float_bytes(self) -> int:
        """Bytes of the weights as float32."""
        return _FLOAT_BYTES * self.count

    @property
    def packed_bytes(self) -> int:
        """Bytes of the codes without unused bits."""
        return -(-self.count * self.bits // 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Values:
    """A rounded activation.

    Attributes:
      name: of its layer.
      kind: `activation`, or `other tensor` that published networks leave float.
      bits: of a value.
      low: smallest value of its grid.
      high: largest value of its grid.
      scale: the step of its grid.
    """

    name: str
    kind: str
    bits: int
    low: float
    high: float
    scale: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of all arrays of a network in one form.

    Attributes:
      weights: of convolutions and dense layers.
      constants: scales and zero points.
      others: biases and batch norms, which stay float.
    """

    weights: int
    constants: int
    others: int

    @property
    def total(self) -> int:
        """Bytes of all."""
        return self.weights + self.constants + self.others


Form = Literal["float32", "stored", "packed"]
"""A float network, the export, and the export without the unused bits of its codes."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StoredLayers:
    """The layers of a network of integers, in the order of their calls.

    Attributes:
      weights: of convolutions and dense layers.
      values: of rounded activations.
      sizes: of the whole network by its form.
    """

    weights: tuple[Weights, ...]
    values: tuple[Values, ...]
    sizes: dict[Form, Sizes]


def stored_layers(quantized: QuantizedNetwork) -> StoredLayers:
    """Returns ranges and sizes of a network's layers; a layer called twice counts once.

    Raises:
      TypeError: the network does not hold integers.
    """
    layers = quantized.network.layers
    if not isinstance(layers, IntegerLayers):
        raise TypeError(f"only a network of IntegerLayers has codes, got {layers!r}")
    called = called_layers(
        quantized.network.clone(layers=FloatLayers()), quantized.record.image_shape(1)
    )
    bits = all_bits(
        called,
        layers.bits,
        weights=layers.kernels.bits,
        activations=layers.activations.bits,
        others=None if layers.others is None else layers.others.bits,
    )
    integers = {
        "/".join(path): np.asarray(leaf)
        for path, leaf in flatten_dict(quantized.variables["integers"]).items()
    }
    kinds = {layer.name: _KINDS[layer.kind] for layer in called}
    weights = tuple(
        _weights(name, kinds[name], n, integers) for name, n in bits["weights"].items()
    )
    values = tuple(
        _values(name, kind, Grid(bits[group][name], grid.symmetric), integers)
        for name, kind in kinds.items()
        for group, grid in (
            ("activations", layers.activations),
            ("others", layers.others),
        )
        if grid is not None and name in bits[group]
    )
    others = {
        name: tree for name, tree in quantized.variables.items() if name != "integers"
    }
    return StoredLayers(
        weights=weights,
        values=values,
        sizes=_sizes(weights, integers, _bytes(others)),
    )


def _weights(
    name: str, kind: str, bits: int, integers: dict[str, np.ndarray]
) -> Weights:
    codes, scale, zero = (
        integers[f"{name}/{leaf}"] for leaf in ("kernel", "scale", "zero_point")
    )
    channels = codes.reshape(-1, codes.shape[-1]).astype(np.int32) - zero
    return Weights(
        name=name,
        kind=kind,
        bits=bits,
        low=np.min(channels, axis=0) * scale,
        high=np.max(channels, axis=0) * scale,
        scale=scale,
        count=codes.size,
        stored_bytes=codes.nbytes,
    )


def _values(
    name: str, kind: str, grid: Grid, integers: dict[str, np.ndarray]
) -> Values:
    scale, zero = (
        float(integers[f"{name}/{leaf}"]) for leaf in ("scale", "zero_point")
    )
    return Values(
        name=name,
        kind=kind,
        bits=grid.bits,
        low=(grid.qmin - zero) * scale,
        high=(grid.qmax - zero) * scale,
        scale=scale,
    )


def _sizes(
    weights: tuple[Weights, ...], integers: dict[str, np.ndarray], others: int
) -> dict[Form, Sizes]:
    """The sizes of all forms.

    Packed, the codes of 2 to 7 asymmetric bits need the zero points that the export
    has subtracted (`acq/kernels/integer_codes.py`): as many as it stores.
    """
    codes = sum(one.stored_bytes for one in weights)
    constants = sum(leaf.nbytes for leaf in integers.values()) - codes
    return {
        "float32": Sizes(
            weights=sum(one.float_bytes for one in weights), constants=0, others=others
        ),
        "stored": Sizes(weights=codes, constants=constants, others=others),
        "packed": Sizes(
            weights=sum(one.packed_bytes for one in weights),
            constants=constants,
            others=others,
        ),
    }


def _bytes(tree: PyTree) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))

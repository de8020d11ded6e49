"""A quantized network that integer kernels compute: the one that all files hold.

Three things may be missing for that. Each is added here, so that the files, and the
accuracy measured of the result, are of one and the same network:

    quantizers    of tensors that GDFQ leaves float, 8 bits. The input's range is that
                  of black and white. The others' are observed on images; the samples
                  of the generator keep the network data-free.
    zero points   asymmetric weights of 8 bits have codes from -255 to 255 without
                  their zero point. Channels above 127 are rounded again, to 127 steps
                  in each direction. Weights of fewer bits do not change.
    biases        are rounded to steps of the input's scale times the kernel's, as int32
                  holds them. With batch normalisation this changes its bias.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from acq.deploy.network_graph import integer_graph
from acq.export import QuantizedNetwork
from acq.kernels.grid import Grid, scale_and_zero_point
from acq.layers.bits import Layer, called_layers, input_activation
from acq.layers.float import FloatLayers
from acq.layers.integer import IntegerLayers
from acq.layers.observed import RangedActivation, ranges_from_images
from acq.layers.operations import ActivationKind
from common.errors import UserError
from common.typing import PyTree

_ADDED = Grid(8)
_STEPS = 127
# A flat tree of arrays: {'params/conv1/kernel': array}.
_Flat = dict[str, Any]


class IntegerReady(NamedTuple):
    """A network that integer kernels compute.

    Attributes:
      network: all its convolutions have quantized inputs and outputs.
      added: names of activations that got quantizers here.
      rounded_again: names of layers whose weights of 8 bits changed.
    """

    network: QuantizedNetwork
    added: tuple[str, ...]
    rounded_again: tuple[str, ...]


def lacks_quantizers(small: QuantizedNetwork) -> bool:
    """Returns whether tensors that integer kernels need are float."""
    return _layers(small).others is None and bool(_unquantized(small))


def make_integer_ready(
    small: QuantizedNetwork, images: Iterable[jax.Array] | None = None
) -> IntegerReady:
    """Returns a network that integer kernels compute.

    Args:
      small: the quantized network.
      images: batches of normalised images for the missing ranges; needed only if
        `lacks_quantizers`.

    Raises:
      UserError: ranges are missing and there are no images, or the network has an
        operation that cannot be exported.
    """
    added = tuple(_unquantized(small)) if lacks_quantizers(small) else ()
    if added:
        if images is None:
            raise UserError(
                f"{small.record.name}: {', '.join(added)} are float, but integer "
                "kernels need them quantized. Quantize the network with other_bits=8, "
                "or give images for their ranges"
            )
        small = _with_quantizers(small, images)
    small, rounded_again = _with_zero_points_of_0(small)
    return IntegerReady(_with_round_biases(small), added, rounded_again)


def _layers(small: QuantizedNetwork) -> IntegerLayers:
    layers = small.network.layers
    assert isinstance(layers, IntegerLayers), layers
    return layers


def _unquantized(small: QuantizedNetwork) -> list[str]:
    """Returns the names of the "identity" activations, in the order of their calls."""
    names = (layer.name for layer in _called_layers(small) if layer.kind == "other")
    return list(dict.fromkeys(names))


def _called_layers(small: QuantizedNetwork) -> tuple[Layer, ...]:
    network = small.network.clone(layers=FloatLayers())
    return called_layers(network, small.record.image_shape(1))


@dataclasses.dataclass(frozen=True)
class _ObservingLayers(IntegerLayers):
    """Integer layers whose "identity" activations sow the range of their output."""

    def activation(self, kind: ActivationKind, *, name: str) -> nn.Module:
        if kind == "identity":
            return RangedActivation(kind, _ADDED, "minmax", name=name)
        return super().activation(kind, name=name)


def _with_quantizers(
    small: QuantizedNetwork, images: Iterable[jax.Array]
) -> QuantizedNetwork:
    layers = _layers(small)
    fields = {
        field.name: getattr(layers, field.name) for field in dataclasses.fields(layers)
    }
    ranges = flatten_dict(
        ranges_from_images(
            small.network, _ObservingLayers(**fields), small.variables, images
        ),
        sep="/",
    )
    variables = _flat(small.variables)
    names, first = _unquantized(small), input_activation(_called_layers(small))
    for name in names:
        low, high = (jnp.asarray(ranges[f"{name}/{end}"]) for end in ("low", "high"))
        if name == first:
            low, high = map(jnp.float32, small.record.input_range)
        scale, zero_point = scale_and_zero_point(low, high, _ADDED)
        variables[f"integers/{name}/scale"] = scale
        variables[f"integers/{name}/zero_point"] = zero_point.astype(jnp.uint8)
    others = dict.fromkeys(names, _ADDED.bits)
    manifest = _changed(small.manifest, "layer_bits", others=others)
    return dataclasses.replace(
        small,
        network=small.network.clone(layers=dataclasses.replace(layers, others=_ADDED)),
        variables=_tree(variables),
        manifest=_changed(manifest, "quantizer", other_bits=_ADDED.bits),
    )


def _with_zero_points_of_0(
    small: QuantizedNetwork,
) -> tuple[QuantizedNetwork, tuple[str, ...]]:
    """Returns the network with int8 weights, and the names of changed layers."""
    variables = _flat(small.variables)
    changed = []
    for path in [name for name in variables if name.endswith("/kernel")]:
        codes = np.asarray(variables[path])
        if codes.dtype == np.int8:
            continue
        layer = path.removesuffix("/kernel")
        zero_point, scale = (
            np.asarray(variables[f"{layer}/{leaf}"]) for leaf in ("zero_point", "scale")
        )
        steps = codes.astype(np.int32) - zero_point.astype(np.int32)
        largest = np.max(np.abs(steps), axis=tuple(range(steps.ndim - 1)))
        wider = np.maximum(largest / _STEPS, 1.0)
        variables[path] = np.rint(steps / wider).astype(np.int8)
        variables[f"{layer}/scale"] = (scale * wider).astype(np.float32)
        variables[f"{layer}/zero_point"] = np.zeros_like(zero_point, np.int8)
        if np.any(wider > 1):
            changed.append(layer.removeprefix("integers/"))
    layers = _layers(small)
    # The dtype of all codes is int8, as in symmetric grids.
    kernels = Grid(layers.kernels.bits, symmetric=True)
    ready = dataclasses.replace(
        small,
        network=small.network.clone(
            layers=dataclasses.replace(layers, kernels=kernels)
        ),
        variables=_tree(variables),
        manifest=_changed(small.manifest, "quantizer", symmetric_weights=True),
    )
    return ready, tuple(changed)


def _with_round_biases(small: QuantizedNetwork) -> QuantizedNetwork:
    """Returns the network with biases that int32 holds."""
    kernels = integer_graph(small).kernels
    variables = _flat(small.variables)
    paths = [f"params/{value.norm or value.layer.name}/bias" for value, _ in kernels]
    # A layer that is called twice has two scales, and one bias for both.
    calls = Counter(paths)
    for path, (value, kernel) in zip(paths, kernels, strict=True):
        if path in variables and calls[path] == 1:
            whole = kernel.bias * kernel.bias_scale.astype(np.float64)
            rounded = np.asarray(variables[path], np.float64) + (whole - value.shift)
            variables[path] = rounded.astype(np.float32)
    return dataclasses.replace(small, variables=_tree(variables))


def _changed(manifest: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    return {**manifest, section: {**manifest.get(section, {}), **values}}


def _flat(variables: PyTree) -> _Flat:
    return flatten_dict(variables, sep="/")


def _tree(variables: _Flat) -> PyTree:
    return unflatten_dict(variables, sep="/")

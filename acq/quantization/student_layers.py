"""The layers of a teacher's student: their bits, their grids and their first ranges."""

import dataclasses

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from acq.classifier import Classifier
from acq.kernels.grid import Grid
from acq.layers.bits import (
    Layer,
    LayerBits,
    all_bits,
    called_layers,
    choose_bits,
    input_activation,
)
from acq.layers.float import FloatLayers
from acq.layers.observed import RangeLayers, ranges_from_statistics
from acq.layers.quantized import Quantizer, QuantLayers
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from common.typing import PyTree


def uniform_layers(settings: QuantizerSettings) -> QuantLayers:
    """Returns the layers of a student without bits of single layers."""
    kernels = Grid(settings.weight_bits, symmetric=settings.symmetric_weights)
    # Kernels' ranges are their smallest and largest value: nothing is outside.
    return QuantLayers(
        kernels=Quantizer(kernels, "identity"),
        activations=Quantizer(Grid(settings.activation_bits), settings.gradient),
        others=(
            Quantizer(Grid(settings.other_bits), settings.gradient)
            if settings.other_bits
            else None
        ),
    )


def quant_layers(settings: QuantizerSettings, teacher: Classifier) -> QuantLayers:
    """Returns the layers of a teacher's student.

    Raises:
      UserError: the teacher does not have a layer that bits are given for.
    """
    bits = _layer_bits(settings, teacher)
    return dataclasses.replace(uniform_layers(settings), bits=bits)


def _layer_bits(settings: QuantizerSettings, teacher: Classifier) -> LayerBits:
    if not settings.layers and not settings.first_last_bits:
        return ()
    return choose_bits(
        dict(settings.layers),
        settings.first_last_bits,
        _called_layers(teacher),
        others=settings.other_bits > 0,
    )


def fixed_weight_bits(
    settings: QuantizerSettings, teacher: Classifier
) -> dict[str, int | None]:
    """Returns {layer: bits of its weights}, None where the settings name no such layer.

    It has all convolutions and dense layers, in the order of their calls.
    """
    own = dict(_layer_bits(settings, teacher))
    layers = _called_layers(teacher)
    return {x.name: own.get(x.name) for x in layers if x.kind in ("conv", "dense")}


def bits_by_layer(
    settings: QuantizerSettings, teacher: Classifier
) -> dict[str, dict[str, int]]:
    """Returns {'weights', 'activations', 'others': {name: bits}} of all layers.

    As results and manifests hold them.
    """
    return all_bits(
        _called_layers(teacher),
        _layer_bits(settings, teacher),
        weights=settings.weight_bits,
        activations=settings.activation_bits,
        others=settings.other_bits or None,
    )


def _called_layers(teacher: Classifier) -> tuple[Layer, ...]:
    network = teacher.with_layers(FloatLayers())
    return called_layers(network, teacher.record.image_shape(1))


def range_layers(settings: QuantizerSettings, teacher: Classifier) -> RangeLayers:
    """Returns the layers that measure the ranges of a teacher's student."""
    layers = quant_layers(settings, teacher)
    return RangeLayers(
        activations=layers.activations.grid,
        others=layers.others.grid if layers.others else None,
        method=settings.range_method,
        bits=layers.bits,
    )


def statistics_ranges(settings: QuantizationSettings, teacher: Classifier) -> PyTree:
    """Returns the ranges that the teacher's BatchNorm parameters alone give.

    The range of the network's input, if it is quantized, is that of black and white.
    """
    record = teacher.record
    ranges = ranges_from_statistics(
        teacher.network,
        range_layers(settings.quantizer, teacher),
        teacher.variables,
        record.image_shape(settings.train.batch_size),
        # "rbg" compiles several times faster than the default, with as many layers.
        jax.random.key(settings.seed, impl="rbg"),
    )
    first = input_activation(_called_layers(teacher))
    if first is None or settings.quantizer.other_bits == 0:
        return ranges
    ends = zip(("low", "high"), map(jnp.float32, record.input_range), strict=True)
    known = {f"{first}/{name}": end for name, end in ends}
    return unflatten_dict({**flatten_dict(ranges, sep="/"), **known}, sep="/")

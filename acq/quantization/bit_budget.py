"""Bits of the weights, chosen for each layer so that all weights fit a budget in MB.

A layer's weights take the bytes that they have when packed:

    ceil(weights * bits / 8)   codes
    7 for each output channel  the scale (float32), the zero point (1 byte) and the
                               lowest code (2 bytes)

Biases, batch normalisation and the activations' scales are not counted: they do not
depend on the bits. A MB is 10^6 bytes.

The bits, 2 to 8, are those with the least sum of sensitivities (`sensitivity.py`) that
fits. Layers with bits of their own in the settings keep them and count.
"""

import dataclasses
import glob
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict

from acq.classifier import Classifier
from acq.kernels.grid import MAX_BITS, MIN_BITS
from acq.quantization.knapsack import least_cost_choice
from acq.quantization.sensitivity import measure_sensitivity
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from acq.quantization.student_layers import fixed_weight_bits
from common.devices import of_first_process
from common.errors import UserError
from common.text_table import format_table

CHOICES = range(MIN_BITS, MAX_BITS + 1)
_CHANNEL_BYTES = 7
_MB = 1_000_000


class BitChoice(NamedTuple):
    """The bits of a budget.

    Attributes:
      bits: {layer: bits} of the layers that the settings leave open.
      sensitivity: {layer: its sensitivity at these bits}; {} if all bits are the
        largest, which needs no measurement.
    """

    bits: dict[str, int]
    sensitivity: dict[str, float]


def packed_bytes(shape: tuple[int, ...], bits: int) -> int:
    """Returns the bytes of a packed kernel with its scales.

    Args:
      shape: of the kernel; its last axis holds the output channels.
      bits: of a weight.
    """
    return -(-math.prod(shape) * bits // 8) + _CHANNEL_BYTES * shape[-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Budget:
    """A budget and what it has to hold.

    Attributes:
      most: bytes.
      shapes: {layer: shape of its kernel}, of all layers with weights.
      fixed: {layer: bits} of those with bits of their own.
    """

    most: int
    shapes: Mapping[str, tuple[int, ...]]
    fixed: Mapping[str, int]

    @property
    def open(self) -> list[str]:
        """The layers whose bits are chosen."""
        return [name for name in self.shapes if name not in self.fixed]

    @property
    def fixed_bytes(self) -> int:
        """The bytes of the layers with bits of their own."""
        return self.bytes_of(self.fixed)

    def bytes_of(self, bits: Mapping[str, int]) -> int:
        """The bytes of some layers with these bits."""
        return sum(packed_bytes(self.shapes[name], n) for name, n in bits.items())

    def bytes_with(self, bits: int) -> int:
        """The bytes of all layers, with these bits for the open ones."""
        return self.fixed_bytes + self.bytes_of(dict.fromkeys(self.open, bits))


def refuse_small_budget(settings: QuantizerSettings, teacher: Classifier) -> None:
    """Raises UserError if the weights do not fit the budget at the fewest bits."""
    if not settings.budget_mb:
        return
    budget = _budget(settings, teacher)
    least = budget.bytes_with(MIN_BITS)
    if budget.most >= least:
        return
    fixed = ", ".join(f"{name} {bits}" for name, bits in budget.fixed.items())
    raise UserError(
        f"config.quantizer.budget_mb: got {settings.budget_mb}, accepted: 0 for no "
        f"budget, or at least {_in_mb(least)} MB, which the weights of "
        f"{teacher.record.name} take with {MIN_BITS} bits and their scales"
        + (
            f"; fixed by config.quantizer.layers and first_last_bits: {fixed} bits"
            if fixed
            else ""
        )
    )


def choose_bits_within(
    settings: QuantizationSettings, teacher: Classifier
) -> BitChoice:
    """Returns the bits of the layers that the settings leave open, and logs a table.

    All processes call this, and all get the choice of the first.

    Args:
      settings: with a budget that `refuse_small_budget` accepts.
      teacher: the float network.

    Raises:
      UserError: a sensitivity is not finite.
    """
    budget = _budget(settings.quantizer, teacher)
    if budget.bytes_with(MAX_BITS) <= budget.most:
        chosen = BitChoice(dict.fromkeys(budget.open, MAX_BITS), {})
    else:
        chosen = _least_sensitive(budget, settings, teacher)
    _log(budget, chosen)
    return chosen


def with_weight_bits(
    settings: QuantizationSettings, bits: Mapping[str, int]
) -> QuantizationSettings:
    """Returns the settings with these bits of layers, before their own, which count.

    `weight_bits` are those of most of these layers, so that results name the others.
    """
    if not bits:
        return settings
    chosen = tuple((glob.escape(name), n) for name, n in bits.items())
    every = sorted(bits.values())
    quantizer = dataclasses.replace(
        settings.quantizer,
        weight_bits=max(every, key=every.count),
        layers=(*chosen, *settings.quantizer.layers),
    )
    return dataclasses.replace(settings, quantizer=quantizer)


def _budget(settings: QuantizerSettings, teacher: Classifier) -> _Budget:
    fixed = fixed_weight_bits(settings, teacher)
    params: dict[str, Any] = flatten_dict(teacher.variables["params"], sep="/")
    shapes = {name: np.shape(params[f"{name}/kernel"]) for name in fixed}
    return _Budget(
        # The third digit of a byte is float rounding; 1e300 MB may not overflow.
        most=math.floor(round(min(settings.budget_mb, _MB) * _MB, 3)),
        shapes=shapes,
        fixed={name: bits for name, bits in fixed.items() if bits is not None},
    )


def _least_sensitive(
    budget: _Budget, settings: QuantizationSettings, teacher: Classifier
) -> BitChoice:
    names = budget.open
    costs = measure_sensitivity(
        teacher,
        names,
        CHOICES,
        symmetric=settings.quantizer.symmetric_weights,
        seed=settings.seed,
    )
    bad = [name for name, of_layer in costs.items() if not np.isfinite(of_layer).all()]
    if bad:
        raise UserError(
            f"config.quantizer.budget_mb: {teacher.record.name} has logits that are "
            f"not finite, with rounded weights of {', '.join(bad)}. So no bits can be "
            "chosen. Look at its weights, or give the bits of these layers in "
            "config.quantizer.layers"
        )
    sizes = [[packed_bytes(budget.shapes[n], b) for b in CHOICES] for n in names]
    places = least_cost_choice(
        sizes, [costs[name] for name in names], budget.most - budget.fixed_bytes
    )
    # Other machines may round another way, and all processes need the same bits.
    places = of_first_process(np.asarray(places, np.int32)).tolist()
    at = dict(zip(names, places, strict=True))
    return BitChoice(
        {name: CHOICES[i] for name, i in at.items()},
        {name: float(costs[name][i]) for name, i in at.items()},
    )


def _log(budget: _Budget, chosen: BitChoice) -> None:
    """Logs a table of all layers."""
    bits = {**budget.fixed, **chosen.bits}
    rows = [
        (
            name,
            math.prod(shape),
            bits[name],
            chosen.sensitivity.get(name),
            "given" if name in budget.fixed else "",
        )
        for name, shape in budget.shapes.items()
    ]
    least, largest = (_in_mb(budget.bytes_with(n)) for n in (MIN_BITS, MAX_BITS))
    title = (
        f"bits of the weights: {_in_mb(budget.bytes_of(bits))} MB packed; the budget: "
        f"{_in_mb(budget.most)}; {MIN_BITS} bits take {least}, {MAX_BITS} {largest}"
    )
    header = ["layer", "weights", "bits", "sensitivity\nnats", ""]
    logging.info("\n%s", format_table(header, rows, digits=6, title=title))
    if budget.open and not chosen.sensitivity:
        logging.info(
            "config.quantizer.budget_mb: got %s, which holds %d bits everywhere",
            _in_mb(budget.most), MAX_BITS,
        )  # fmt: skip


def _in_mb(count: int) -> str:
    """Bytes as MB, exactly."""
    return f"{count / _MB:.6f}"

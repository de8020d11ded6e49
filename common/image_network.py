"""A trained network from images to images, as one method hands it to another.

The method that trained it knows its unit, its images and its files. The other one sees
what is here alone, so that neither imports the other. A config names the function that
opens such a network, 'package.module:function'.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from common.report.parts import ViewedSlice
from common.typing import PyTree

Apply = Callable[[jax.Array], jax.Array]
"""From images (n, h, w, channels) to images (n, h, w, 1), in the network's unit."""


class Rounding(NamedTuple):
    """How one convolution is computed with integers.

    Its input x becomes the code clip(round(x / scale) + zero_point, 0, highest), uint8.
    A weight of output channel o is its code times `weight_scale[o]`.

    Attributes:
      scale: of the input, above 0.
      zero_point: the code of 0.
      highest: the highest code.
      weight_scale: (o,), above 0.
      weight_bits: weights are codes from 1 - 2^(bits - 1) to 2^(bits - 1) - 1.
    """

    scale: float
    zero_point: int
    highest: int
    weight_scale: np.ndarray
    weight_bits: int


class Quantized(NamedTuple):
    """A network whose convolutions are computed with integers.

    Attributes:
      variables: of the network, each kernel at its rounded values.
      roundings: of each convolution, by its path in the network, 'layer2/conv'.
      description: what a file says of it: bits, and how the ranges were found.
    """

    variables: PyTree
    roundings: Mapping[str, Rounding]
    description: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageNetwork:
    """A trained network with what another method may know of it.

    Attributes:
      name: of the network.
      module: takes images (n, h, w, channels) and `train`, returns (n, h, w, 1).
      variables: `params` and, with batch normalisation, `batch_stats`.
      channels: of its input.
      low: the least value of images without noise, in the network's unit.
      high: the greatest value of them.
      stored: the least and the greatest value that files of images hold.
      multiple: image sides are multiples of it.
      identity: all that decides its results, as JSON.
      images: from a kind, a number of images, their side and a seed to images (n, side,
        side, channels).
      kinds: the kinds of images, each with what it is in words.
      judge: from functions by name to what each is worth on images that nothing learned
        from: {data set: {name: {measure: number, or None}}}.
      warnings: what a reader must know before trusting the judgement.
      views: from functions by name to slices that nothing learned from, one of each
        data set: `input`, each function's image by its name, and `truth`.
      to_hu: from the network's unit to HU.
      write: writes a file for other software: (quantized, path); of the float network:
        (None, path).
    """

    name: str
    module: nn.Module
    variables: PyTree
    channels: int
    low: float
    high: float
    stored: tuple[float, float]
    multiple: int
    identity: Mapping[str, Any]
    images: Callable[[str, int, int, int], np.ndarray]
    kinds: Mapping[str, str]
    judge: Callable[[Mapping[str, Apply]], dict[str, Any]]
    warnings: Sequence[str]
    views: Callable[[Mapping[str, Apply]], Sequence[ViewedSlice]]
    to_hu: Callable[[np.ndarray], np.ndarray]
    write: Callable[[Quantized | None, Path], None]

    @property
    def has_statistics(self) -> bool:
        """Whether it has batch normalisation, whose statistics images can match."""
        return "batch_stats" in self.variables

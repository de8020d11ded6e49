"""Bits of the convolutions of a network."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.kernels.grid import Grid
from common.errors import UserError
from common.image_network import ImageNetwork
from common.intercepted import intercepted, name_of


class Convolution(NamedTuple):
    """A convolution of a network.

    Attributes:
      name: its path, 'layer2/conv'.
      norm: the path of the BatchNorm that takes its result; '' without one.
      epsilon: that of the BatchNorm.
    """

    name: str
    norm: str = ""
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkBits:
    """Bits of each convolution's weights and input.

    Attributes:
      weight_bits: of weights, 2 to 8.
      activation_bits: of inputs, 2 to 8.
      first_last_bits: of weights and input of the first and the last convolution; 0: as
        all others.
      names: of the convolutions, in the order of their computation.
    """

    weight_bits: int
    activation_bits: int
    first_last_bits: int
    names: tuple[str, ...]

    def of_weights(self, name: str) -> Grid:
        """Returns the grid of a convolution's weights: symmetric, for each channel."""
        return Grid(self._chosen(name, self.weight_bits), symmetric=True)

    def of_input(self, name: str) -> Grid:
        """Returns the grid of a convolution's input: asymmetric, one for all of it."""
        return Grid(self._chosen(name, self.activation_bits))

    def _chosen(self, name: str, bits: int) -> int:
        at_end = name in (self.names[0], self.names[-1])
        return self.first_last_bits if at_end and self.first_last_bits else bits


def convolutions_of(network: ImageNetwork, side: int) -> tuple[Convolution, ...]:
    """Returns the convolutions, in the order of their computation.

    Args:
      network: the network.
      side: height and width of the images.

    Raises:
      UserError: it has none.
    """
    found: dict[str, Convolution] = {}
    results: dict[str, jax.Array] = {}

    def keep(module: nn.Module, result: jax.Array) -> None:
        name = name_of(module)
        found.setdefault(name, Convolution(name))
        results[name] = result

    def pair(module: nn.BatchNorm, x: jax.Array) -> None:
        for name, result in results.items():
            if result is x:
                found[name] = Convolution(name, name_of(module), module.epsilon)

    images = jax.ShapeDtypeStruct((1, side, side, network.channels), jnp.float32)
    with intercepted(at_norm=pair, after_convolution=keep):
        jax.eval_shape(network.module.apply, network.variables, images)
    if not found:
        raise UserError(
            f"{network.name}: it has no convolution to quantize: accepted are modules "
            "with a parameter `kernel` of four axes"
        )
    return tuple(found.values())

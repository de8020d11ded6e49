"""How a network is trained and applied: as a regression, or as a flow.

Both kinds take stacks `n h w c` in network units. A stack holds c neighbouring slices
(2.5-D); the centre slice, c // 2, is denoised. c is the network's `channels`, 1 by
default. Both kinds are frozen and hashable, so functions made from them can be cached.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from common.typing import PyTree
from ipv2.models.units import SCALED_HU, Unit
from ipv2.training import flow
from ipv2.training.losses import Loss

Stack = Float[Array, "n h w c"]
Image = Float[Array, "n h w"]
# The collections that a training step changes, besides the parameters.
MUTABLE = ("batch_stats",)


@runtime_checkable
class Denoiser(Protocol):
    """A network with its training loss and its way of denoising.

    Attributes:
      model: the network.
      unit: unit of its input and output.
    """

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...

    @property
    def unit(self) -> Unit:
        """Unit of its input and output."""
        ...

    @property
    def slices(self) -> int:
        """How many neighbouring slices it takes."""
        ...

    def init(self, rng: Key[Array, ""]) -> PyTree:
        """Returns fresh variables: `params` and, for some networks, `batch_stats`."""
        ...

    def train_loss(
        self,
        variables: PyTree,
        x: Stack,
        y: Stack,
        rngs: Key[Array, "n"],
        weight: Stack | None = None,
    ) -> tuple[Float[Array, ""], PyTree]:
        """Returns the loss of a batch and the collections that it changed.

        Args:
          variables: variables of the network.
          x: noisy stacks.
          y: the same stacks without noise.
          rngs: a key per example; an example's draws depend on its own key alone.
          weight: how much each pixel counts, 0 ... 1; None where all count alike.
        """
        ...

    def denoise(self, variables: PyTree, x: Stack) -> Image:
        """Returns the denoised centre slices, float32."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression:
    """A network that maps a noisy stack to the clean centre slice.

    Attributes:
      model: takes `n h w c` and `train`, returns `n h w 1`.
      loss: takes prediction and target.
      unit: unit of its input and output.
    """

    model: nn.Module
    loss: Loss
    unit: Unit = SCALED_HU

    @property
    def slices(self) -> int:
        """How many neighbouring slices it takes."""
        return _channels_of(self.model)

    def init(self, rng: Key[Array, ""]) -> PyTree:
        """Returns fresh variables."""
        return self.model.lazy_init(rng, _example(self.model))

    def train_loss(
        self,
        variables: PyTree,
        x: Stack,
        y: Stack,
        rngs: Key[Array, "n"],
        weight: Stack | None = None,
    ) -> tuple[Float[Array, ""], PyTree]:
        """Returns the loss of the centre slice; it uses no random numbers."""
        del rngs
        output, changed = self.model.apply(variables, x, train=True, mutable=MUTABLE)
        counts = None if weight is None else _centre(weight)
        loss = self.loss(cast(Array, output), _centre(y), counts, _centre(x))
        return loss, changed

    def denoise(self, variables: PyTree, x: Stack) -> Image:
        """Returns the network's output."""
        return cast(Array, self.model.apply(variables, x))[..., 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """A network that returns the velocity from the noisy stack to the clean one.

    Attributes:
      model: takes `n h w c`, times `n` and `train`, returns `n h w c`.
      sampler: a name of `flow.SAMPLERS`.
      steps: steps of the sampler.
      dropout_in_evaluation: whether to drop activations when denoising too, as the
        published code does in validation. The same activations are dropped each time,
        so results repeat.
      unit: unit of its input and output. If its channels are equal, `denoise` takes
        one slice, `n h w 1`, repeats it as all channels and returns their mean.
    """

    model: nn.Module
    sampler: str = "euler"
    steps: int = 50
    dropout_in_evaluation: bool = False
    unit: Unit = SCALED_HU

    @property
    def slices(self) -> int:
        """How many neighbouring slices it takes."""
        return 1 if self.unit.equal_channels else _channels_of(self.model)

    def init(self, rng: Key[Array, ""]) -> PyTree:
        """Returns fresh variables."""
        time = jax.ShapeDtypeStruct((1,), jnp.float32)
        return self.model.lazy_init(rng, _example(self.model), time)

    def train_loss(
        self,
        variables: PyTree,
        x: Stack,
        y: Stack,
        rngs: Key[Array, "n"],
        weight: Stack | None = None,
    ) -> tuple[Float[Array, ""], PyTree]:
        """Returns the velocity loss at a time drawn from [0, 1) for each example."""
        both = jax.vmap(jax.random.split)(rngs)
        time = flow.draw_times(both[:, 0])

        def velocity(x_t: Array, at: Array) -> Array:
            output = self.model.apply(variables, x_t, at, dropout_rngs=both[:, 1])
            return cast(Array, output)

        return flow.velocity_loss(velocity, x, y, time, weight), {}

    def denoise(self, variables: PyTree, x: Stack) -> Image:
        """Returns the denoised slices at the path's end; the path starts at x."""
        rngs = None
        if self.dropout_in_evaluation:
            rngs = jnp.broadcast_to(jax.random.key(0), x.shape[:1])
        if self.unit.equal_channels:
            x = jnp.repeat(x, _channels_of(self.model), axis=-1)

        def velocity(x_t: Array, at: Array) -> Array:
            output = self.model.apply(variables, x_t, at, dropout_rngs=rngs)
            return cast(Array, output)

        end = flow.integrate(velocity, x, sampler=self.sampler, steps=self.steps)
        return end.mean(-1) if self.unit.equal_channels else _centre(end)[..., 0]


@functools.cache
def make_denoise(denoiser: Denoiser) -> Callable[[PyTree, Array], Array]:
    """Returns a function (variables, `b h w c` HU) -> `b h w` HU.

    The function applies the network and denoises the centre slice.

    Args:
      denoiser: the network; c is its `slices`.

    Returns:
      A traceable function. Equal denoisers get the same function, so jit compiles it
      once.
    """

    def denoise(variables: PyTree, hu: Float[Array, "b h w c"]) -> Array:
        unit = denoiser.unit
        denoised = denoiser.denoise(variables, unit.from_hu(hu))
        return unit.to_hu(denoised, _centre(hu)[..., 0])

    return denoise


def _channels_of(model: nn.Module) -> int:
    return cast(Any, model).channels


def _example(model: nn.Module) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, 64, 64, _channels_of(model)), jnp.float32)


def _centre(stack: Stack) -> Float[Array, "n h w 1"]:
    middle = stack.shape[-1] // 2
    return stack[..., middle : middle + 1]

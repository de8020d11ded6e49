"""Float layers that hold a network at the state that its BatchNorm statistics describe.

In a held network the output of every batch normalisation is a draw, normal with mean
`bias` and standard deviation `scale` in each channel, as over the images of the
training. A change of weights before it still has its effect:

    y = drawn + normalised(x) - normalised(x of the unchanged network)

So the effect of a change on the logits can be computed without data. A pass in which
`offsets` are mutable draws, and stores drawn - normalised(x) for each layer; later
passes, of the same images, add what it stored.

    collection   leaves of a module
    offsets      batch norm: offset, of the shape of its input
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.layers.float import FloatLayers
from acq.layers.operations import normalise, per_channel


class HeldNorm(nn.Module):
    """Batch normalisation in evaluation mode, moved to a drawn output.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Values of the shape of `x`; draws from the random stream `gaussian`."""
        mean, var = (self._stored("batch_stats", name) for name in ("mean", "var"))
        scale, bias = (self._stored("params", name) for name in ("scale", "bias"))
        normalised = normalise(x, mean, var, scale, bias, self.epsilon)
        if self.is_mutable_collection("offsets"):
            noise = jax.random.normal(self.make_rng("gaussian"), x.shape)
            drawn = per_channel(scale, x) * noise + per_channel(bias, x)
            self.put_variable("offsets", "offset", drawn - normalised)
        return normalised + self._stored("offsets", "offset")

    def _stored(self, collection: str, name: str) -> jax.Array:
        return jnp.asarray(self.get_variable(collection, name))


@dataclasses.dataclass(frozen=True)
class HeldLayers(FloatLayers):
    """Float layers with `HeldNorm`."""

    def batch_norm(self, *, epsilon: float = 1e-5, name: str) -> nn.Module:
        """Returns a `HeldNorm`."""
        return HeldNorm(epsilon, name=name)

"""Users' networks that each break one rule of ipv2/models/README.md."""

import flax.linen as nn
import jax.numpy as jnp


class Fine(nn.Module):
    channels: int = 1
    depth: int = 2
    dtype: jnp.dtype | None = None

    radius = 1
    stride = 1

    @nn.compact
    def __call__(self, x, *, train=False):
        return self._body(x)

    def _body(self, x):
        return nn.Conv(1, (3, 3), name="only")(x).astype(jnp.float32)


class Normalised(Fine):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train=False):
        norm = nn.BatchNorm(not train, axis_name=self.axis_name, name="norm")
        return norm(self._body(x))


class WithoutChannels(nn.Module):
    dtype: jnp.dtype | None = None


class NeedsMore(Fine):
    radius = None
    blocks: int = nn.module.dataclasses.field(kw_only=True)


class WithoutTrain(Fine):
    @nn.compact
    def __call__(self, x):
        return self._body(x)


class AllSlices(Fine):
    @nn.compact
    def __call__(self, x, *, train=False):
        return jnp.repeat(self._body(x), 3, -1)


class Half(Fine):
    @nn.compact
    def __call__(self, x, *, train=False):
        return self._body(x).astype(jnp.bfloat16)


class OneSize(Fine):
    @nn.compact
    def __call__(self, x, *, train=False):
        return self._body(x.reshape(-1, 64, 64, self.channels))  # here it raises


class Halving(Fine):
    @nn.compact
    def __call__(self, x, *, train=False):
        return jnp.repeat(jnp.repeat(self._body(x)[:, ::2, ::2], 2, 1), 2, 2)


class Dropping(Fine):
    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Dropout(0.5, deterministic=not train)(self._body(x))


class Remembering(Fine):
    @nn.compact
    def __call__(self, x, *, train=False):
        self.variable("cache", "calls", lambda: jnp.zeros(()))
        return self._body(x)


class Empty(Fine):
    @nn.compact
    def __call__(self, x, *, train=False):
        return x[..., :1]


class NegativeRadius(Fine):
    radius = -1
    stride = 0


class Refusing(Fine):
    def __post_init__(self):
        if self.channels > 1:
            raise RuntimeError("one slice alone")
        super().__post_init__()

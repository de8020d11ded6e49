"""The Mixer of FFM (arXiv 2510.07492): two scales, then space and frequency.

    high  = gelu(depthwise(dense(x[first half])))
    low   = enlarged(gelu(norm(conv3x3(pooled(x[second half])))))
    fused = f + depthwise(f),  f = [high, low]
    out   = fused + dense([dense(fused), frequency(fused)])

`frequency` applies rfft2, a two-layer network over channels (1x1, LeakyReLU 0.1, 1x1)
to the magnitude and another one to the phase, then irfft2. A change of one frequency
changes the image everywhere: so FFM depends on the whole image.

The published semantics are kept. The transform is not normalised, so the mean of a map
has the magnitude h w |mean|. The phase is a number in [-pi, pi], so neighbouring angles
on both sides of pi are far apart for the network. Departs from the published code only
in the angle's gradient, which is finite (`kernels.polar`).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from ipv2.kernels.polar import magnitude_and_phase
from ipv2.models.blocks import Conv, DepthwiseConv
from ipv2.models.flow_unet import NORM_EPSILON, NORM_GROUPS, kernel_init

_SLOPE = 0.1


class FrequencyBranch(nn.Module):
    """Applies small networks to the magnitude and phase spectra of features.

    It computes in float32: the magnitude at the mean of a 512x512 map is above 100,000,
    and a phase in bfloat16 would be off by a hundredth of a turn.

    Attributes:
      param_dtype: Dtype of the parameters.
    """

    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 features of the shape of x, (n, h, w, c)."""
        height, width, channels = x.shape[1:]
        # Channels first, so that the transform reads consecutive memory.
        spectrum = jnp.fft.rfft2(x.astype(jnp.float32).transpose(0, 3, 1, 2))
        # The rounding error of a sum of h w numbers of order one.
        floor = float(jnp.finfo(jnp.float32).eps) * height * width
        magnitude, phase = magnitude_and_phase(spectrum.real, spectrum.imag, floor)
        magnitude = self._network("magnitude", magnitude, channels)
        phase = self._network("phase", phase, channels)
        spectrum = jax.lax.complex(
            magnitude * jnp.cos(phase), magnitude * jnp.sin(phase)
        )
        y = jnp.fft.irfft2(spectrum, s=(height, width))
        return y.transpose(0, 2, 3, 1)

    def _network(self, name: str, x: jax.Array, channels: int) -> jax.Array:
        dense = functools.partial(ChannelsFirstDense, channels, self.param_dtype)
        x = nn.leaky_relu(dense(name=f"{name}1")(x), _SLOPE)
        return dense(name=f"{name}2")(x)


class ChannelsFirstDense(nn.Module):
    """A 1x1 convolution of (n, c, h, w); parameters as `flax.linen.Dense` has them."""

    features: int
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(n, features, h, w), float32."""
        shape = (x.shape[1], self.features)
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), shape, self.param_dtype
        )
        bias = self.param(
            "bias", nn.initializers.zeros_init(), shape[1:], self.param_dtype
        )
        y = jnp.einsum("nchw,cd->ndhw", x, kernel.astype(jnp.float32))
        return y + bias.astype(jnp.float32).reshape(1, -1, 1, 1)


class Mixer(nn.Module):
    """FFM's second layer of a residual block; see the module's docstring.

    Attributes:
      features: Channels in and out, a multiple of 16.
      dtype: Dtype of the computation, except for the frequency branch (float32).
      param_dtype: Dtype of the parameters.
    """

    features: int
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of the shape of x, (n, h, w, features); h and w even."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dense = functools.partial(nn.Dense, **dtypes)
        depthwise = functools.partial(DepthwiseConv, use_bias=False, **dtypes)
        conv = functools.partial(
            Conv, kernel_size=3, use_bias=False, kernel_init=kernel_init, **dtypes
        )
        gelu = functools.partial(nn.gelu, approximate=False)
        half = self.features // 2

        high = dense(half, use_bias=False, name="high1")(x[..., :half])
        high = gelu(depthwise(name="high2")(high))
        low = conv(half, name="low")(halved(x[..., half:]))
        norm = nn.GroupNorm(NORM_GROUPS, epsilon=NORM_EPSILON, name="norm", **dtypes)
        low = doubled(gelu(norm(low)))
        both = jnp.concatenate([high, low], axis=-1)
        fused = both + depthwise(name="fuse")(both)

        spatial = dense(self.features, name="spatial")(fused)
        frequency = FrequencyBranch(self.param_dtype, name="frequency")(fused)
        both = jnp.concatenate([spatial, frequency.astype(spatial.dtype)], axis=-1)
        return fused + dense(self.features, name="out")(both)


def halved(x: jax.Array) -> jax.Array:
    """Returns means of 2x2 squares."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def doubled(x: jax.Array) -> jax.Array:
    """Repeats every pixel as a 2x2 square."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)

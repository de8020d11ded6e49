"""Parts that several denoisers share: network units and the convolution layer.

Networks see `unit = HU / 1000`: water is 0, air is -1, cortical bone about 1 to 2. The
scale is linear, has no window and loses nothing, so that a network's output is HU
again. Nothing else in the project may scale HU for a network.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float

from ipv2.kernels.convolution import convolve

HU_PER_UNIT = 1000.0

Padding = Literal["valid", "same", "full"]


def hu_to_unit(hu: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Network units, HU / 1000: water 0, air -1."""
    return hu / HU_PER_UNIT


def unit_to_hu(unit: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """HU of a network's output, in float32."""
    return unit.astype(jnp.float32) * HU_PER_UNIT


def check_image(x: jax.Array, minimum: int, name: str) -> None:
    """Raises ValueError unless `x` is NHWC with one channel and sides >= `minimum`."""
    if x.ndim != 4 or x.shape[-1] != 1:
        raise ValueError(f"{name} takes images of shape (n, h, w, 1), got {x.shape}")
    if min(x.shape[1:3]) < minimum:
        raise ValueError(
            f"{name} needs images of at least {minimum}x{minimum} pixels, got "
            f"{x.shape[1]}x{x.shape[2]}; pad the image or take a larger patch"
        )


class Conv(nn.Module):
    """Stride-1 convolution with a bias; `flax.linen.Conv` with faster gradients on CPU.

    Parameters `kernel` (k, k, in, features) and `bias` (features,) are named and laid
    out as in flax, so weights move between the two.

    Attributes:
      features: Channels out.
      kernel_size: Side of the square kernel.
      padding: 'valid' (shrinks by k - 1), 'same' (odd kernels), or 'full' (grows by
        k - 1). 'full' is a stride-1 transposed convolution: the kernel of a PyTorch
        `ConvTranspose2d` weight w is `w.transpose(2, 3, 0, 1)[::-1, ::-1]`.
      dtype: What is computed in; None for that of the input and the parameters.
      param_dtype: What the parameters are kept in.
      kernel_init: He's normal by default, for the ReLU that follows.
    """

    features: int
    kernel_size: int
    padding: Padding = "same"
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    kernel_init: Initializer = initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of shape (n, h', w', features)."""
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param(
            "bias", initializers.zeros_init(), (self.features,), self.param_dtype
        )
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolve(x, kernel, _pixels(self.padding, size))
        return y + bias.reshape(1, 1, 1, -1)


def _pixels(padding: Any, size: int) -> int:
    match padding:
        case "valid":
            return 0
        case "full":
            return size - 1
        case "same" if size % 2:
            return size // 2
        case "same":
            raise ValueError(f"'same' padding needs an odd kernel, got {size}x{size}")
    raise ValueError(f"padding must be 'valid', 'same' or 'full', got {padding!r}")

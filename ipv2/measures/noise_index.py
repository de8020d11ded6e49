"""The noise of a scan without a reference: the mode of local deviations.

After the global noise level of Christianson et al., AJR 205(1), 2015: the local
standard deviation at every pixel of soft tissue, whose histogram peaks at the noise,
while vessels, organs and edges fill its upper tail.

`noise_level.soft_tissue_noise_hu` serves those who choose or match a dose: it takes the
10th percentile of a map of 7 x 7 pixels, which works in small images, but reads a tenth
low in white noise and far lower in coarse noise. This number is for reports: it is near
the true deviation, and it needs more soft tissue.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ipv2.kernels.smoothing import gaussian
from ipv2.measures.tissues import TISSUES

SIZE_PX = 15
# The slice is smoothed first, so that its noise does not choose the pixels.
_SMOOTH_PX = 3.0
# Neighbouring windows share most of their pixels: every fourth is enough.
_STRIDE_PX = 4
# The mode is the middle of the shortest interval with the first share of all values,
# among the second share, the lowest.
_MODE_SHARE = 0.1
_LOWER_SHARE = 0.5
_FEWEST_WINDOWS = 50


def noise_index_hu(image_hu: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Returns the most frequent local standard deviation in soft tissue, HU.

    Soft tissue is -10 ... 120 HU after smoothing by 3 pixels. A deviation is that of
    the soft pixels among 15 x 15, around their mean; windows of which fewer than half
    are soft are left out, and so are three of four along each axis. The mode is the
    middle of the shortest interval that holds a tenth of the deviations, among the
    lower half of them.

    Departs from the paper, which takes the peak of a histogram: bins would have to suit
    any noise, and anatomy, which only raises a deviation, may have a peak of its own.

    At 384 pixels and more, noise of 20 to 60 HU reads within 5 % where it is white or
    that of filtered backprojection. It leaves out noise coarser than 15 pixels: texture
    of a Gaussian with sigma 1 pixel reads up to 10 % low, 2 pixels 20 %. Coarse noise
    above 100 HU moves pixels out of range even after smoothing and reads lower still.
    Texture of the tissue itself counts as noise: 5 HU of noise may read 20 % high. At
    256 pixels, a slice with little soft tissue may read double. Contrast agent takes
    vessels and organs out of range.

    Args:
      image_hu: HU.

    Returns:
      NaN where a slice has fewer than 50 windows.

    Raises:
      ValueError: Images are smaller than 15x15.
    """
    if min(image_hu.shape[-2:]) < SIZE_PX:
        raise ValueError(
            f"the noise index needs at least {SIZE_PX}x{SIZE_PX}, got "
            f"{image_hu.shape[-2:]}"
        )
    low, high = TISSUES["soft"]
    smooth = gaussian(image_hu, _SMOOTH_PX)
    soft = (smooth >= low) & (smooth < high)
    deviation, count = _local_deviation(image_hu, soft)
    used = soft[..., ::_STRIDE_PX, ::_STRIDE_PX] & (count > SIZE_PX**2 / 2)
    return _mode(
        deviation.reshape(*image_hu.shape[:-2], -1),
        used.reshape(*image_hu.shape[:-2], -1),
    )


def _local_deviation(image: Array, mask: Bool[Array, "*b h w"]) -> tuple[Array, Array]:
    """Returns the deviation of the mask's pixels around every fourth, and their count.

    Pixels are 15 x 15; neighbours outside the mask or the image do not count.
    """
    # HU near 0: squares keep their digits.
    inside = jnp.where(mask, image - sum(TISSUES["soft"]) / 2, 0)
    count, total, squares = (
        _window_sums(a) for a in (mask.astype(jnp.float32), inside, inside**2)
    )
    variance = squares - total**2 / jnp.maximum(count, 1)
    variance = variance / jnp.maximum(count - 1, 1)
    return jnp.sqrt(jnp.maximum(variance, 0)), count


def _window_sums(values: Array) -> Array:
    """Returns sums over 15 x 15 pixels around every fourth pixel; zeros surround."""
    for axis in (values.ndim - 1, values.ndim - 2):
        window, stride = np.ones((2, values.ndim), int)
        window[axis], stride[axis] = SIZE_PX, _STRIDE_PX
        padding = [(0, 0)] * values.ndim
        padding[axis] = (SIZE_PX // 2,) * 2
        values = lax.reduce_window(
            values, 0.0, lax.add, tuple(window), tuple(stride), padding
        )
    return values


def _mode(values: Float[Array, "*b n"], used: Bool[Array, "*b n"]) -> Array:
    """Returns the middle of the shortest interval with a tenth, in the lower half."""
    count = jnp.sum(used, axis=-1, keepdims=True)
    ordered = jnp.sort(jnp.where(used, values, jnp.inf), axis=-1)
    step = jnp.maximum((_MODE_SHARE * count).astype(jnp.int32), 1)
    first = jnp.arange(values.shape[-1]).reshape((1,) * (values.ndim - 1) + (-1,))
    last = jnp.minimum(first + step, values.shape[-1] - 1)
    upper = jnp.take_along_axis(ordered, last, axis=-1)
    lower = (_LOWER_SHARE * count).astype(jnp.int32)
    width = jnp.where(first + step < lower, upper - ordered, jnp.inf)
    best = jnp.argmin(width, axis=-1, keepdims=True)
    ends = [jnp.take_along_axis(a, best, axis=-1)[..., 0] for a in (ordered, upper)]
    return jnp.where(count[..., 0] >= _FEWEST_WINDOWS, (ends[0] + ends[1]) / 2, jnp.nan)

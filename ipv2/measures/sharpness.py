"""How wide edges are: the 10-90 % rise of the lungs' outline and of vessels, in mm.

Points are steep pixels of the truth (`edges.edge_masks`), at most 512 a slice, spread
evenly over them. Through each, a profile runs along the truth's gradient, from dark to
bright. It is sampled every quarter pixel by cubic convolution (Keys, IEEE TASSP 29(6),
1981), which unlike bilinear interpolation adds no variance to an edge. Its zero is
where the truth crosses half of its own rise. A point counts if the truth rises there by
at least 200 HU and nearly without a fall, so that nothing else lies on the profile.

The profiles of a slice are averaged, which leaves a mean edge with little noise, and
weighs points by their contrast. The rise is the distance between the places where it
crosses 10 % and 90 % of the way between its own ends, outwards from the middle. A
Gaussian blur of sigma has a rise of 2.563 sigma, and variances add up.

Both images are sampled at the places that the truth alone chooses: an edge that the
output has moved by varying distances reads as wide. The truth must be aligned with the
image and low in noise. Limits, for images of 512 pixels or fewer, in pixels:

- Sampling itself widens edges sharper than 1 pixel: a sigma of 0.8 reads 4 % high.
- A profile reaches 8 to both sides of the outline, but 3.5 into a vessel and 5 out of
  it, so vessels blurred to a sigma of 1.7 read 5 % low, of 2.2 12 % low.
- Thin vessels share few middles, whose noise no mean removes: three vessels 8 wide in
  noise of a ninth of their contrast read 15 % high. Average over slices.
- Noise stops the way from the middle outwards early: the outline reads 1 % low in noise
  of 40 HU, 2 % in 100 HU.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ipv2.kernels.smoothing import gaussian
from ipv2.measures.edges import edge_masks

# A Gaussian blur's 10-90 % rise over its sigma.
RISE_OF_SIGMA = 2.5631
_POINTS = 512
# A mean of fewer profiles says little.
_FEWEST_POINTS = 20
_STEP_PX = 0.25


class _Reach(NamedTuple):
    """How far profiles go to the dark and the bright side, and their ends' length.

    In pixels at 512; the mean of an end is its level.
    """

    dark_px: float
    bright_px: float
    end_px: float


class Profiles(NamedTuple):
    """Mean profiles across edges, from dark to bright.

    Attributes:
      at_px: (k,) pixels from the middle of the truth's edge.
      image_hu: `*b k` of the image.
      truth_hu: `*b k` of the truth.
      points: `*b`, profiles that count.
    """

    at_px: np.ndarray
    image_hu: Float[Array, "*b k"]
    truth_hu: Float[Array, "*b k"]
    points: Int[Array, "*b"]


# Beyond a vessel's middle, profiles would fall again.
_REACHES = {"vessels": _Reach(5.0, 3.5, 0.5), "pleura": _Reach(8.0, 8.0, 1.5)}
# Against the truth's noise, where points are chosen.
_SMOOTH_PX = 1.0
_LEAST_RISE_HU = 200.0
# Share of the rise that the truth may fall along a profile.
_MOST_FALL = 0.1
# How far the middle may lie from the steep pixel.
_MOST_SHIFT_PX = 2.0


def edge_rises_mm(
    image_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
    lung: Bool[Array, "*b h w"],
    pixel_mm: Float[Array, "*b"],
) -> dict[str, dict[str, Float[Array, "*b"]]]:
    """Returns the 10-90 % rise of vessels and pleura in the image and in the truth.

    Args:
      image_hu: HU.
      truth_hu: aligned truth, HU.
      lung: rough mask of the truth's lungs; it may omit vessels.
      pixel_mm: size of a pixel.

    Returns:
      {'vessels' | 'pleura': {'rise_mm', 'truth_rise_mm', 'points'}}, one number a
      slice; rises are NaN where fewer than 20 points count.
    """
    measured = _over_slices(_rises_px, image_hu, truth_hu, lung)
    return {
        name: {
            "rise_mm": rises[..., 0] * pixel_mm,
            "truth_rise_mm": rises[..., 1] * pixel_mm,
            "points": points,
        }
        for name, (rises, points) in measured.items()
    }


def edge_profiles(
    image_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
    lung: Bool[Array, "*b h w"],
) -> dict[str, Profiles]:
    """Returns the mean profiles whose rises `edge_rises_mm` returns.

    Args:
      image_hu: HU.
      truth_hu: aligned truth, HU.
      lung: rough mask of the truth's lungs; it may omit vessels.

    Returns:
      {'vessels' | 'pleura': profiles}; NaN where fewer than 20 points count.
    """
    measured = _over_slices(_profiles_or_nan, image_hu, truth_hu, lung)
    stretch = _stretch(truth_hu.shape)
    return {
        name: Profiles(_reach_px(name, stretch), means[..., 0, :], means[..., 1, :], n)
        for name, (means, n) in measured.items()
    }


def _over_slices(
    measure: Callable[..., tuple[Array, Array]],
    image_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
    lung: Bool[Array, "*b h w"],
) -> dict[str, tuple[Array, Array]]:
    """Returns what `measure` finds at vessels and pleura of every slice."""
    batch, (h, w) = truth_hu.shape[:-2], truth_hu.shape[-2:]
    masks = edge_masks(truth_hu, lung)
    image, truth = (a.reshape(-1, h, w) for a in (image_hu, truth_hu))
    smooth = gaussian(truth, _SMOOTH_PX)
    down, across = jnp.gradient(smooth, axis=(-2, -1))
    result = {}
    stretch = _stretch(truth_hu.shape)
    for name, reach in _REACHES.items():
        mask = masks[name].reshape(-1, h, w)
        one = functools.partial(
            measure,
            at_px=_reach_px(name, stretch),
            end=1 + round(reach.end_px * stretch / _STEP_PX),
        )
        found, points = jax.vmap(one)(image, truth, smooth, down, across, mask)
        result[name] = found.reshape(*batch, *found.shape[1:]), points.reshape(batch)
    return result


def _stretch(shape: tuple[int, ...]) -> float:
    return max(1.0, min(shape[-2:]) / 512)


def _reach_px(name: str, stretch: float) -> np.ndarray:
    reach = _REACHES[name]
    return _positions(reach.dark_px * stretch, reach.bright_px * stretch)


def _positions(dark_px: float, bright_px: float) -> np.ndarray:
    """Returns where a profile is sampled: pixels from its middle, dark to bright."""
    first, last = math.ceil(-dark_px / _STEP_PX), math.floor(bright_px / _STEP_PX)
    return (np.arange(first, last + 1) * _STEP_PX).astype(np.float32)


def _rises_px(
    image: Float[Array, "h w"],
    truth: Float[Array, "h w"],
    smooth: Float[Array, "h w"],
    down: Float[Array, "h w"],
    across: Float[Array, "h w"],
    mask: Bool[Array, "h w"],
    *,
    at_px: np.ndarray,
    end: int,
) -> tuple[Float[Array, "2"], Int[Array, ""]]:
    """Returns the rises of image and truth in pixels, and how many points count.

    `end` is the number of samples that an end of a profile has.
    """
    means, points = _mean_profiles(
        image, truth, smooth, down, across, mask, at_px=at_px
    )
    rises = jnp.stack([_rise_samples(mean, end) * _STEP_PX for mean in means])
    return jnp.where(points >= _FEWEST_POINTS, rises, jnp.nan), points


def _profiles_or_nan(
    *images: Array, at_px: np.ndarray, end: int
) -> tuple[Float[Array, "2 k"], Int[Array, ""]]:
    """Returns the mean profiles of image and truth, and how many points count."""
    del end
    means, points = _mean_profiles(*images, at_px=at_px)
    return jnp.where(points >= _FEWEST_POINTS, jnp.stack(means), jnp.nan), points


def _mean_profiles(
    image: Float[Array, "h w"],
    truth: Float[Array, "h w"],
    smooth: Float[Array, "h w"],
    down: Float[Array, "h w"],
    across: Float[Array, "h w"],
    mask: Bool[Array, "h w"],
    *,
    at_px: np.ndarray,
) -> tuple[list[Float[Array, " k"]], Int[Array, ""]]:
    """Returns the mean profiles of image and truth, and how many points count."""
    row, column, there = _spread_points(mask)
    slope_down, slope_across = down[row, column], across[row, column]
    steepness = jnp.maximum(jnp.hypot(slope_down, slope_across), 1e-6)
    normal = slope_down / steepness, slope_across / steepness

    def profiles(values: Array, shift_px: Array) -> Array:
        along = at_px[None, :] + shift_px[:, None]
        return sample_cubic(
            values,
            row[:, None] + along * normal[0][:, None],
            column[:, None] + along * normal[1][:, None],
        )

    rough = profiles(smooth, jnp.zeros(_POINTS))
    middle, found = _middle_px(rough, at_px)
    fine = profiles(smooth, middle)
    counted = there & found & _is_one_edge(fine)
    points = jnp.sum(counted, dtype=jnp.int32)
    weight = counted / jnp.maximum(points, 1)
    return [weight @ profiles(values, middle) for values in (image, truth)], points


def _spread_points(mask: Array) -> tuple[Array, Array, Array]:
    """Returns rows, columns of `_POINTS` pixels of the mask, and whether they exist.

    They are spread evenly over the mask in reading order; a mask of fewer pixels gives
    each once.
    """
    rank = jnp.cumsum(mask.reshape(-1).astype(jnp.int32))
    count = rank[-1]
    number = jnp.arange(_POINTS)
    # Floats: the product of two counts may pass 2^31.
    spread = jnp.floor(number * (count.astype(jnp.float32) / _POINTS)).astype(jnp.int32)
    wanted = jnp.where(count > _POINTS, spread, number)
    place = jnp.searchsorted(rank, wanted + 1)
    place = jnp.minimum(place, mask.size - 1)
    row, column = jnp.divmod(place, mask.shape[-1])
    return row, column, wanted < count


def _middle_px(profile: Array, at_px: np.ndarray) -> tuple[Array, Array]:
    """Returns where profiles cross half of their rise, and whether that is near."""
    low, high = profile[:, :1], profile[:, -1:]
    above = profile - (low + high) / 2
    crossing = (above[:, :-1] < 0) & (above[:, 1:] >= 0)
    crossing &= np.abs(at_px[None, :-1]) <= _MOST_SHIFT_PX
    distance = jnp.where(crossing, np.abs(at_px[None, :-1]), jnp.inf)
    nearest = jnp.argmin(distance, axis=-1)[:, None]
    before = jnp.take_along_axis(above, nearest, axis=-1)[:, 0]
    after = jnp.take_along_axis(above, nearest + 1, axis=-1)[:, 0]
    share = before / jnp.minimum(before - after, -1e-6)
    found = jnp.any(crossing, axis=-1)
    middle = jnp.asarray(at_px)[nearest[:, 0]] + share * _STEP_PX
    return jnp.where(found, middle, 0.0), found


def _is_one_edge(profile: Array) -> Array:
    """Returns whether profiles of the smoothed truth rise enough, and hardly fall."""
    rise = profile[:, -1] - profile[:, 0]
    fall = jnp.sum(jnp.maximum(-jnp.diff(profile, axis=-1), 0), axis=-1)
    return (rise >= _LEAST_RISE_HU) & (fall <= _MOST_FALL * rise)


def _rise_samples(profile: Float[Array, " n"], end: int) -> Float[Array, ""]:
    """Returns the 10-90 % distance of one profile from dark to bright, in samples."""
    low, high = jnp.mean(profile[:end]), jnp.mean(profile[-end:])
    share = (profile - low) / jnp.maximum(high - low, 1e-6)
    number = jnp.arange(len(profile))
    middle = jnp.argmin(jnp.abs(share - 0.5))
    # The last sample below 10 % before the middle, the first above 90 % after it.
    lower = jnp.max(jnp.where((share <= 0.1) & (number <= middle), number, 0))
    upper = jnp.min(
        jnp.where((share >= 0.9) & (number >= middle), number, len(profile) - 1)
    )

    def crossing(before: Array, level: float) -> Array:
        step = jnp.maximum(share[before + 1] - share[before], 1e-6)
        return before + (level - share[before]) / step

    return crossing(upper - 1, 0.9) - crossing(lower, 0.1)


def sample_cubic(
    image: Float[Array, "h w"],
    row: Float[Array, "*n"],
    column: Float[Array, "*n"],
) -> Float[Array, "*n"]:
    """Returns the image at places between pixels, by cubic convolution with a = -1/2.

    It is exact for polynomials of degree 2. The border's pixels repeat beyond it.
    """
    (rows, down), (columns, across) = (
        _cubic_taps(place, size)
        for place, size in zip((row, column), image.shape, strict=True)
    )
    flat = image.reshape(-1)

    # A loop: sixteen gathers written out take twice as long to compile.
    def add(tap: Any, total: Array) -> Array:
        i, j = tap // 4, tap % 4
        pixels = flat[rows[i] * image.shape[1] + columns[j]]
        return total + down[i] * across[j] * pixels

    return lax.fori_loop(0, 16, add, jnp.zeros(row.shape, image.dtype))


def _cubic_taps(place: Array, size: int) -> tuple[Array, Array]:
    """Returns (4, *n) pixels around places along an axis, and their weights."""
    first = jnp.floor(place)
    t = place - first
    weights = [
        t * (t * (1 - 0.5 * t) - 0.5),
        1 + t * t * (1.5 * t - 2.5),
        t * (0.5 + t * (2 - 1.5 * t)),
        t * t * (0.5 * t - 0.5),
    ]
    start = first.astype(jnp.int32)
    pixels = [jnp.clip(start + k, 0, size - 1) for k in (-1, 0, 1, 2)]
    return jnp.stack(pixels), jnp.stack(weights)

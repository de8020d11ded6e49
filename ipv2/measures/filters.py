"""Filters without training, for every table to hold beside a network.

| name       | what                                          | strength is            |
|------------|-----------------------------------------------|------------------------|
| `gaussian` | convolution with a Gaussian                   | its sigma in pixels    |
| `tv`       | total variation (Rudin, Osher, Fatemi 1992)   | weight / noise         |
| `nlm`      | non-local means (Buades, Coll, Morel 2005),   | h / noise              |
|            | scikit-image's                                |                        |
| `bm3d`     | BM3D (Dabov et al. 2007), of the package bm3d | sigma / noise          |

"Noise" is the standard deviation of the slice's noise as seen in the slice itself: the
median of `noise_analysis.noise_map` over the body. A filter's strength is chosen on
validation slices, where it has the smallest RMSE against the reference.

`gaussian` and `tv` run on device, compiled once for each size of a batch. `nlm` and
`bm3d` run on the CPU, slice by slice, and need further packages: `pip install -r
requirements-filters.txt`. BM3D's licence allows non-commercial use only.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from common.errors import UserError
from ipv2.kernels.total_variation import total_variation
from ipv2.measures.noise_analysis import noise_map

Images = Float[Array, "b h w"] | Float[np.ndarray, "b h w"]
PerSlice = Float[Array, " b"] | Float[np.ndarray, " b"]
# As many as TV needs to come within 1 HU of its limit.
_TV_ITERATIONS = 100
_NLM_PATCH, _NLM_DISTANCE = 5, 6
# BM3D's own thresholds are for images in [0, 1]: 12 bits from -1024 HU.
_LOW_HU, _WIDTH_HU = -1024.0, 4095.0
_SIGMAS_PX = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5)
_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)


class Filter(NamedTuple):
    """A filter and how strong it may be.

    Attributes:
      apply: (images HU, strength, noise HU of each slice) -> images HU.
      strengths: to choose from, rising.
      default: the strength without slices to choose on.
      package: what has to be installed; '' for nothing.
    """

    apply: Callable[[Images, float, PerSlice], Images]
    strengths: tuple[float, ...]
    default: float = 1.0
    package: str = ""


class Batch(NamedTuple):
    """Slices to choose a strength on.

    Attributes:
      images: noisy images, HU.
      references: what they should show, HU.
      noise_hu: standard deviation of each slice's noise.
      count: slices that count; the others fill the batch.
    """

    images: Images
    references: Images
    noise_hu: PerSlice
    count: int


@jax.jit
def noise_sd_hu(
    images_hu: Float[Array, "*b h w"], body: Bool[Array, "*b h w"]
) -> Float[Array, "*b"]:
    """Returns the standard deviation of the noise that each slice shows in the body.

    Where the body is empty, the whole slice counts.
    """
    noise = noise_map(jnp.asarray(images_hu, jnp.float32))
    empty = ~jnp.any(body, axis=(-2, -1), keepdims=True)
    inside = jnp.where(body | empty, noise, jnp.nan)
    return jnp.nanmedian(inside, axis=(-2, -1))


def choose_strength(name: str, batches: Sequence[Batch]) -> tuple[float, bool]:
    """Returns the strength with the smallest RMSE, and whether it is an end of them.

    Strengths are tried from the weakest on, until the error rises.

    Args:
      name: of `FILTERS`.
      batches: validation slices.
    """
    one = FILTERS[name]
    errors: list[float] = []
    for strength in one.strengths:
        errors.append(sum(_squared_error(one, strength, batch) for batch in batches))
        if len(errors) > 1 and errors[-1] > errors[-2]:
            break
    best = int(np.argmin(errors))
    return one.strengths[best], best in (0, len(one.strengths) - 1)


def _squared_error(one: Filter, strength: float, batch: Batch) -> float:
    """Returns the mean squares of every slice, summed."""
    found = np.asarray(one.apply(batch.images, strength, batch.noise_hu))
    errors = np.square(found - np.asarray(batch.references))[: batch.count]
    return float(np.mean(errors, axis=(1, 2), dtype=np.float64).sum())


def check_filters(names: Sequence[str]) -> None:
    """Raises UserError if a filter's package is not installed."""
    missing = [
        FILTERS[name].package
        for name in names
        if FILTERS[name].package
        and importlib.util.find_spec(FILTERS[name].package) is None
    ]
    if missing:
        raise UserError(
            f"config.evaluate.filters: {', '.join(names)} need packages that are not "
            f"installed ({', '.join(missing)}). Install them with `pip install -r "
            "requirements-filters.txt`, or name other filters: "
            "config.evaluate.filters=\"('gaussian','tv')\"."
        )


def _apply_gaussian(images: Images, strength: float, noise_hu: PerSlice) -> Images:
    del noise_hu
    return _gaussian(jnp.asarray(images, jnp.float32), strength)


@jax.jit
def _gaussian(images: Array, sigma_px: Array) -> Array:
    """Convolves with a Gaussian whose width is not known before it runs.

    `smoothing.gaussian` would be compiled once for each width.
    """
    radius = math.ceil(4 * max(_SIGMAS_PX))
    offset = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weight = jnp.exp(-0.5 * jnp.square(offset / sigma_px))
    weight = weight / weight.sum()
    for axis in (1, 2):
        border = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        padded = jnp.pad(images, border, mode="edge")
        size = images.shape[axis]
        images = sum(
            (
                weight[k] * jax.lax.slice_in_dim(padded, k, k + size, axis=axis)
                for k in range(2 * radius + 1)
            ),
            start=jnp.zeros_like(images),
        )
    return images


def _apply_tv(images: Images, strength: float, noise_hu: PerSlice) -> Images:
    weight = strength * jnp.asarray(noise_hu, jnp.float32)
    return _total_variation(jnp.asarray(images, jnp.float32), weight[:, None, None])


@jax.jit
def _total_variation(images: Array, weight_hu: Array) -> Array:
    """Minimizes TV with a weight for each slice: TV(u, w) = w TV(u / w, 1).

    A slice without noise stays as it is.
    """
    unit = jnp.where(weight_hu > 0, weight_hu, 1.0)
    quiet = unit * total_variation(images / unit, 1.0, _TV_ITERATIONS)
    return jnp.where(weight_hu > 0, quiet, images)


def _apply_nlm(images: Images, strength: float, noise_hu: PerSlice) -> Images:
    from skimage.restoration import denoise_nl_means

    return np.stack(
        [
            denoise_nl_means(
                np.asarray(image, np.float32),
                patch_size=_NLM_PATCH,
                patch_distance=_NLM_DISTANCE,
                h=strength * float(noise),
                sigma=float(noise),
                fast_mode=True,
            )
            for image, noise in zip(images, noise_hu, strict=True)
        ]
    )


def _apply_bm3d(images: Images, strength: float, noise_hu: PerSlice) -> Images:
    import bm3d

    def quiet(image: Array | np.ndarray, noise: float) -> np.ndarray:
        unit = (np.asarray(image, np.float64) - _LOW_HU) / _WIDTH_HU
        found = np.asarray(bm3d.bm3d(unit, strength * noise / _WIDTH_HU))
        return (found * _WIDTH_HU + _LOW_HU).astype(np.float32)

    return np.stack(
        [quiet(i, float(noise)) for i, noise in zip(images, noise_hu, strict=True)]
    )


FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        "gaussian": Filter(_apply_gaussian, _SIGMAS_PX),
        "tv": Filter(_apply_tv, _SHARES),
        "nlm": Filter(_apply_nlm, _SHARES, package="skimage"),
        "bm3d": Filter(_apply_bm3d, _SHARES, package="bm3d"),
    }
)

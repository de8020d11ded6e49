"""Filters without training, for every table to hold beside a network.

| name       | what                                          | strength is            |
|------------|-----------------------------------------------|------------------------|
| `gaussian` | convolution with a Gaussian                   | its sigma in pixels    |
| `tv`       | total variation (Rudin, Osher, Fatemi 1992)   | weight / noise         |
| `nlm`      | non-local means (Buades, Coll, Morel 2005),   | h / noise              |
|            | scikit-image's                                |                        |
| `bm3d`     | BM3D (Dabov et al. 2007), of the package bm3d | sigma / noise          |

"Noise" is the standard deviation of the slice's noise as seen in the slice itself: the
median of `noise_analysis.noise_map` over the body. A filter's strength is chosen on the
validation split, where it has the smallest RMSE against the reference.

`gaussian` and `tv` run on device. `nlm` and `bm3d` run on the CPU and need packages of
their own: `pip install -r requirements-filters.txt`. BM3D's licence allows
non-commercial use only.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from common.errors import UserError
from ipv2.kernels.smoothing import gaussian
from ipv2.kernels.total_variation import total_variation
from ipv2.measures.noise_analysis import noise_map

Image = Float[np.ndarray, "h w"]
# As many as TV needs to come within 1 HU of its limit.
_TV_ITERATIONS = 100
_NLM_PATCH, _NLM_DISTANCE = 5, 6
# BM3D's own thresholds are for images in [0, 1]: 12 bits from -1024 HU.
_LOW_HU, _WIDTH_HU = -1024.0, 4095.0


class Filter(NamedTuple):
    """A filter and how strong it may be.

    Attributes:
      apply: (image HU, strength, noise HU) -> image HU.
      strengths: to choose from, rising.
      package: what has to be installed; '' for nothing.
    """

    apply: Callable[[Image, float, float], Image]
    strengths: tuple[float, ...]
    package: str = ""


def noise_sd_hu(
    image_hu: Float[Array | np.ndarray, "h w"], body: Bool[Array | np.ndarray, "h w"]
) -> float:
    """Returns the standard deviation of the noise that the slice shows in the body."""
    noise = np.asarray(_noise_map(jnp.asarray(image_hu, jnp.float32)))
    inside = noise[np.asarray(body)]
    return float(np.median(inside if inside.size else noise))


def choose_strength(
    name: str, images: Sequence[tuple[Image, Image, float]]
) -> tuple[float, bool]:
    """Returns the strength with the smallest RMSE, and whether it is an end of them.

    Args:
      name: of `FILTERS`.
      images: (image, reference, noise) of validation slices, HU.
    """
    one = FILTERS[name]
    errors = [
        np.sqrt(
            np.mean(
                [
                    np.mean((one.apply(image, strength, noise) - reference) ** 2)
                    for image, reference, noise in images
                ]
            )
        )
        for strength in one.strengths
    ]
    best = int(np.argmin(errors))
    return one.strengths[best], best in (0, len(errors) - 1)


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


_noise_map = jax.jit(noise_map)
_gaussian = jax.jit(gaussian, static_argnums=1)


def _apply_gaussian(image: Image, strength: float, noise: float) -> Image:
    del noise
    return np.asarray(_gaussian(jnp.asarray(image, jnp.float32), strength))


def _apply_tv(image: Image, strength: float, noise: float) -> Image:
    hu = jnp.asarray(image, jnp.float32)
    return np.asarray(total_variation(hu, strength * noise, _TV_ITERATIONS))


def _apply_nlm(image: Image, strength: float, noise: float) -> Image:
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(
        np.asarray(image, np.float32),
        patch_size=_NLM_PATCH,
        patch_distance=_NLM_DISTANCE,
        h=strength * noise,
        sigma=noise,
        fast_mode=True,
    )


def _apply_bm3d(image: Image, strength: float, noise: float) -> Image:
    import bm3d

    unit = (np.asarray(image, np.float64) - _LOW_HU) / _WIDTH_HU
    quiet = np.asarray(bm3d.bm3d(unit, strength * noise / _WIDTH_HU))
    return (quiet * _WIDTH_HU + _LOW_HU).astype(np.float32)


_SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        "gaussian": Filter(_apply_gaussian, (0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5)),
        "tv": Filter(_apply_tv, _SHARES),
        "nlm": Filter(_apply_nlm, _SHARES, "skimage"),
        "bm3d": Filter(_apply_bm3d, _SHARES, "bm3d"),
    }
)

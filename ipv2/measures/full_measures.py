"""The measures of finished evaluations, beside those that validations take too.

| key                  | of                  | numbers                             |
|----------------------|---------------------|-------------------------------------|
| `mae_hu`, `gmsd`     | each window         | see `perceptual`                    |
| `ms_ssim`, `vif`     | each window         | see `perceptual`                    |
| `vif_ldct_benchmark` | a window of its own | see `perceptual`                    |
| `noise_index_hu`     | the image alone     | see `noise_index`                   |
| `edge_rises` *       | vessels, pleura     | 10-90 % rise, and the reference's   |
| `removed` *          | all but the input   | what the image lost of edges        |

`*`: with an aligned reference only. A number is NaN where its measure is not defined:
images too small for it, no edge, a constant reference, nothing removed.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ipv2.measures import noise_index, removed
from ipv2.measures.edges import EDGES
from ipv2.measures.perceptual import perceptual_metrics
from ipv2.measures.sharpness import edge_rises_mm

# Profiles of 16 pixels across an edge meet other edges in smaller images.
EDGES_PX = 96
_removed_edges = jax.jit(removed.removed_edges)
REMOVED = (
    *("slope_share", "correlation", "correlation_by_chance"),
    *("magnitude_correlation", "magnitude_correlation_by_chance", "tiles_share"),
)


def full_measures(
    target: Mapping[str, Any], image: Array, aligned: bool
) -> dict[str, Any]:
    """Returns the numbers of an image, one per slice, without `removed`.

    Args:
      target: `reference`, `regions` and `spacing_mm`, see `evaluation`.
      image: `b h w` HU.
      aligned: whether the reference shows the anatomy at the same place.
    """
    return _full_measures(target, image, aligned)


def removed_measures(
    input_hu: Array, image: Array, reference: Array
) -> dict[str, Array]:
    """Returns `removed` of an image, which was made of the input; all `b h w` HU."""
    if min(image.shape[-2:]) < removed.MIN_PX:
        return {name: jnp.full(image.shape[:-2], jnp.nan) for name in REMOVED}
    return _removed_edges(input_hu, image, reference)


@functools.partial(jax.jit, static_argnames="aligned")
def _full_measures(
    target: Mapping[str, Any], image: Array, aligned: bool
) -> dict[str, Any]:
    reference = jnp.asarray(target["reference"], jnp.float32)
    large = min(image.shape[-2:]) >= noise_index.SIZE_PX
    none = jnp.full(image.shape[:-2], jnp.nan)
    numbers: dict[str, Any] = {
        **perceptual_metrics(image, reference),
        "noise_index_hu": noise_index.noise_index_hu(image) if large else none,
    }
    if aligned:
        numbers["edge_rises"] = _edge_rises(target, image, reference)
    return numbers


def _edge_rises(
    target: Mapping[str, Any], image: Array, reference: Array
) -> dict[str, dict[str, Array]]:
    keys = ("rise_mm", "truth_rise_mm")
    if min(image.shape[-2:]) < EDGES_PX:
        none = jnp.full(image.shape[:-2], jnp.nan)
        return {edge: dict.fromkeys(keys, none) for edge in EDGES}
    spacing = jnp.asarray(target["spacing_mm"], jnp.float32)
    lung = target["regions"]["lung"]
    pixel_mm = jnp.sqrt(jnp.prod(spacing, axis=-1))
    rises = edge_rises_mm(image, reference, lung, pixel_mm)
    return {edge: {key: rises[edge][key] for key in keys} for edge in EDGES}

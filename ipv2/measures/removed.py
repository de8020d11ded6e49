"""Whether what a denoiser took away was anatomy: input - output against truth's edges.

Pure noise knows nothing of the truth. Where an output flattens an edge, the removed
image r = input - output holds a copy of it, and its gradient runs along the truth's:

    c = sum(grad r . grad t),   over all edges, or over the edges of a tile

Gradients are those of images smoothed by 1 pixel; edges are pixels where the truth is
steeper than 50 HU a pixel.

Chance is measured with r itself. 24 copies of it, shifted by 24 or 40 pixels in all
directions, have its amplitude and texture, and know nothing of the edges where they now
lie. First the gradient of r is divided by its local deviation (Gaussian window, sigma 8
pixels), since noise differs from place to place. Then

    z = c / sqrt(mean over copies of c^2)

c is linear in r, so for noise z follows Student's t with 24 degrees of freedom, and
exceeds 3.467 once in a thousand times. Above it, edges were removed; below -3.467,
edges are steeper in the output than in the input.

Limits:

- The truth must be aligned, and its noise independent of the input's: noise that both
  share and the denoiser removes counts as removed truth.
- Where noise doubles at the very edge, the rate is 2 to 6 in a thousand, most in noise
  as coarse as 3 pixels; and the correlation of magnitudes, which sees that anatomy and
  noise lie at the same place, exceeds chance by 0.02. The other correlation does not.
- The steepest part of a flattened edge lost slope, but its foot gained some. So the
  share of tiles that are found stays near one half when all edges are flattened.
- A residual's own edges lie under shifted copies and raise their mean square: z errs to
  the small side.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ipv2.kernels.smoothing import gaussian, wide_gaussian

TILE_PX = 8
# Shifts of a smaller image would meet on its other side.
MIN_PX = 96
# Student's t with 24 degrees of freedom exceeds it with a probability of 0.001.
CHANCE_RATE, Z_THRESHOLD = 0.001, 3.467
_SMOOTH_PX = 1.0
_STEEP_HU = 50.0
_LOCAL_PX = 8.0
# What counts as nothing removed, HU.
_LEAST_SD_HU = 1e-3
_RINGS_PX = (24, 40)
_ANGLES = 12


def removed_edges(
    input_hu: Float[Array, "*b h w"],
    output_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
) -> dict[str, Float[Array, "*b"]]:
    """Returns how much of the truth's edges lies in input - output, one number a slice.

    Args:
      input_hu: HU.
      output_hu: what the denoiser made of it, HU.
      truth_hu: aligned truth, HU.

    Returns:
      'slope_share': sum(grad r . grad t) / sum(|grad t|^2) over edges: the share of the
      truth's slope that was removed; 0 for noise.
      'correlation': of the gradients of r, divided by their local deviation, and of t,
      over edges: c / sqrt(sum |grad r|^2 sum |grad t|^2).
      'correlation_by_chance': the root mean square of that of shifted copies. The
      quotient of both follows Student's t for noise.
      'magnitude_correlation': Pearson's, of |grad r| and |grad t| over the slice.
      'magnitude_correlation_by_chance': the mean of that of shifted copies.
      'tiles_share': share of the tiles with edges whose z exceeds the threshold, of
      which noise has 0.001.
      NaN where the truth has no edge or nothing was removed.

    Raises:
      ValueError: Images are smaller than 96 pixels.
    """
    return _audit(input_hu, output_hu, truth_hu)[0]


def removed_map(
    input_hu: Float[Array, "*b h w"],
    output_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
) -> Float[Array, "*b r c"]:
    """Returns z of every tile of 8 x 8 pixels: where edges were removed.

    Above `Z_THRESHOLD` they were; noise exceeds it in 0.001 of the tiles.

    Args:
      input_hu: HU.
      output_hu: what the denoiser made of it, HU.
      truth_hu: aligned truth, HU.

    Returns:
      NaN where a tile has no edge. Rows and columns that fill no tile are left out.

    Raises:
      ValueError: Images are smaller than 96 pixels.
    """
    return _audit(input_hu, output_hu, truth_hu)[1]


def _audit(
    input_hu: Array, output_hu: Array, truth_hu: Array
) -> tuple[dict[str, Array], Array]:
    """Returns the numbers of `removed_edges` and the tiles of `removed_map`."""
    if min(truth_hu.shape[-2:]) < MIN_PX:
        raise ValueError(
            f"the audit of what was removed needs images of at least {MIN_PX} pixels "
            f"along each axis, got {truth_hu.shape[-2:]}"
        )
    removed = _gradient(input_hu - output_hu)
    edges, steepness, steep = _edges(truth_hu)
    even, valid = _evened(removed)
    own = _tile_sums(_dot(even, edges))
    magnitude, steepness = (_centred(a) for a in (jnp.hypot(*even), steepness))
    tiles, total, along = _of_copies(even, edges, magnitude, steepness)
    power = _total(_dot(edges, edges))
    scale = jnp.sqrt(_total(jnp.where(steep, _dot(even, even), 0)) * power)
    spread = jnp.sqrt(_total(magnitude**2) * _total(steepness**2))
    z = _z(own, tiles, valid)
    tested = ~jnp.isnan(z)
    found = jnp.sum(tested & (z > Z_THRESHOLD), axis=(-2, -1))
    numbers = {
        "slope_share": _ratio(_total(_dot(removed, edges)), power),
        "correlation": _ratio(_total(own), scale),
        "correlation_by_chance": _ratio(jnp.sqrt(total), scale),
        "magnitude_correlation": _ratio(_total(magnitude * steepness), spread),
        "magnitude_correlation_by_chance": _ratio(along, spread),
        "tiles_share": _ratio(found, jnp.sum(tested, axis=(-2, -1))),
    }
    nothing = ~jnp.any(valid & steep, axis=(-2, -1))
    return {k: jnp.where(nothing, jnp.nan, v) for k, v in numbers.items()}, z


Field = tuple[Array, Array]


def _gradient(image: Array) -> Field:
    """Returns (down, across) of the smoothed image, HU per pixel."""
    down, across = jnp.gradient(gaussian(image, _SMOOTH_PX), axis=(-2, -1))
    return down, across


def _edges(truth: Array) -> tuple[Field, Array, Bool[Array, "*b h w"]]:
    """Returns the truth's gradient at edges, its length everywhere, and the edges."""
    gradient = _gradient(truth)
    steepness = jnp.hypot(*gradient)
    steep = steepness > _STEEP_HU
    down, across = (jnp.where(steep, part, 0) for part in gradient)
    return (down, across), steepness, steep


def _evened(field: Field) -> tuple[Field, Bool[Array, "*b h w"]]:
    """Divides a field by its local deviation; returns where there is one, too.

    The gradient is divided, not the residual: a residual with a mean would turn every
    change of the deviation into a gradient.
    """
    power = wide_gaussian(_dot(field, field) / 2, _LOCAL_PX)
    valid = power > _LEAST_SD_HU**2
    inverse = jnp.where(valid, lax.rsqrt(jnp.where(valid, power, 1)), 0)
    return (field[0] * inverse, field[1] * inverse), valid


def _of_copies(
    removed: Field, edges: Field, magnitude: Array, steepness: Array
) -> tuple[Array, Array, Array]:
    """Returns means over shifted copies of what was removed.

    They are the square of every tile's sum, the square of the whole sum, and the
    magnitudes' product with the truth's steepness.
    """
    h, w = steepness.shape[-2:]
    reach = max(_RINGS_PX)
    pads = [(0, 0)] * (steepness.ndim - 2) + [(reach, reach)] * 2
    padded = [jnp.pad(a, pads, mode="wrap") for a in (*removed, magnitude)]

    def add(sums: tuple[Array, ...], shift: Array) -> tuple[tuple[Array, ...], None]:
        down, across, size = (
            lax.dynamic_slice_in_dim(
                lax.dynamic_slice_in_dim(a, reach + shift[0], h, axis=-2),
                reach + shift[1],
                w,
                axis=-1,
            )
            for a in padded
        )
        tiles = _tile_sums(_dot((down, across), edges))
        new = tiles**2, _total(tiles) ** 2, _total(size * steepness)
        return jax.tree.map(jnp.add, sums, new), None

    zeros = jnp.zeros(steepness.shape[:-2], jnp.float32)
    start = jnp.zeros_like(_tile_sums(steepness)), zeros, zeros
    shifts = _shifts()
    sums, _ = lax.scan(add, start, jnp.asarray(shifts))
    tiles, total, along = (a / len(shifts) for a in sums)
    return tiles, total, along


def _shifts() -> np.ndarray:
    """Returns (24, 2) shifts in pixels, down and across."""
    angles = 2 * math.pi * np.arange(_ANGLES) / _ANGLES
    rings = [
        radius * np.stack([np.sin(angles + turn), np.cos(angles + turn)], axis=-1)
        for radius, turn in zip(_RINGS_PX, (0, math.pi / _ANGLES), strict=True)
    ]
    return np.rint(np.concatenate(rings)).astype(np.int32)


def _z(own: Array, square: Array, valid: Array) -> Array:
    """Returns z of tiles; NaN without an edge, or where most copies are empty.

    Outside a reconstruction's circle nothing is removed: copies from there would make
    chance look smaller than it is.
    """
    share = _tile_sums(wide_gaussian(valid.astype(jnp.float32), sum(_RINGS_PX) / 2))
    share = share / TILE_PX**2
    chance = jnp.sqrt(square / jnp.maximum(share, 0.5))
    tested = (square > 0) & (share > 0.5)
    return jnp.where(tested, own / jnp.where(tested, chance, 1), jnp.nan)


def _dot(a: Field, b: Field) -> Array:
    return a[0] * b[0] + a[1] * b[1]


def _total(values: Array) -> Array:
    return jnp.sum(values, axis=(-2, -1))


def _centred(values: Array) -> Array:
    return values - jnp.mean(values, axis=(-2, -1), keepdims=True)


def _ratio(part: Array, whole: Array) -> Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)


def _tile_sums(values: Array) -> Array:
    """Returns the sums over tiles of 8 x 8 pixels."""
    rows, columns = (side // TILE_PX for side in values.shape[-2:])
    cut = values[..., : rows * TILE_PX, : columns * TILE_PX]
    shape = (*values.shape[:-2], rows, TILE_PX, columns, TILE_PX)
    return jnp.sum(cut.reshape(shape), axis=(-3, -1))

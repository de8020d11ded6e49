"""Outside air, body and lungs of chest CT slices, found on noisy HU images.

The masks of the robust purification. They are found on a working grid of about 256
pixels across (means of p x p pixels: p times less noise), and only their edges are
then drawn at full resolution. In 2-D, for every slice:

1. dark: HU below the air threshold, half-way between lung and soft tissue;
2. body: the largest component of what is not dark, after an opening that cuts off
   table, clothes and marks;
3. outside air: what a fill from the whole border of the image reaches around the body,
   whose walls are closed first, so that no gap of a noisy chest wall lets the fill in;
4. lungs: the dark components inside, without those that are tiny, and without the
   small ones that hold gas (median HU near -1000) rather than lung: trachea, bronchi
   outside the lung, stomach and bowel.

With `volume`, the batch is one volume, and a lung must be connected, through
neighbouring slices, to the lungs of the slice that shows the most of them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

from ipv2.kernels import bit_mask, flood_fill, morphology

# Pixels across the working grid; the radii below are for this size and scale with it.
_GRID = 256
_CLOSING = 4
_OPENING = 2
# Shares of the body's area: what is less than a lung, and what may be an airway.
_SPECK = 0.0015
_AIRWAY = 0.04


@dataclass(frozen=True, kw_only=True)
class AnatomyParams:
    """What counts as air and as gas.

    Attributes:
        air_hu: HU below which a pixel is dark (air or lung).
        gas_hu: median HU below which a small dark component is gas, not lung.
        volume: whether the batch axis holds the slices of one volume, in order.
    """

    air_hu: float = -500.0
    gas_hu: float = -930.0
    volume: bool = False

    def __post_init__(self) -> None:
        """Check the thresholds."""
        if not -1000 < self.gas_hu < self.air_hu < 0:
            raise ValueError(
                "thresholds must satisfy -1000 < gas_hu < air_hu < 0, got "
                f"gas_hu={self.gas_hu}, air_hu={self.air_hu}"
            )


class Anatomy(NamedTuple):
    """Masks of every slice; pixels in neither `outside` nor `lung` are body."""

    outside: Bool[Array, "*b h w"]
    lung: Bool[Array, "*b h w"]


class _Words(NamedTuple):
    outside: UInt32[Array, "b n w"]
    lung: UInt32[Array, "b n w"]


def segment(
    image_hu: Float[Array, "*b h w"], params: AnatomyParams | None = None
) -> Anatomy:
    """Outside air and lungs of HU images of any size.

    The lung mask holds the dark pixels of the lungs; vessels wider than a pixel or two
    are body. Table, clothes and marks belong to the outside. An image without a body
    is all outside; one without dark pixels is all body. No gradient flows.
    """
    params = params or AnatomyParams()
    height, width = image_hu.shape[-2:]
    words = segment_words(image_hu, params)
    return Anatomy(*(bit_mask.unpack(mask, height) for mask in words))


def segment_words(image_hu: jax.Array, params: AnatomyParams) -> _Words:
    """`segment`, with packed masks."""
    *batch, height, width = image_hu.shape
    image_hu = jax.lax.stop_gradient(image_hu)
    pool = max(1, round(min(height, width) / _GRID))
    coarse = _pool(image_hu, pool)
    rows, columns = coarse.shape[-2:]
    air_hu = _air_threshold(coarse, params.air_hu)
    side = min(rows, columns)

    dark = bit_mask.pack(coarse < air_hu)
    body = _body(dark, rows, side)
    outside = _outside(body, rows, columns, side)
    gas = bit_mask.pack(coarse < params.gas_hu)
    lung = _lungs(dark & ~outside, gas, ~outside, rows, side)
    if params.volume:
        lung = _connected_through_slices(lung)

    fine_dark = bit_mask.pack(image_hu < air_hu)
    if side >= _GRID // 4:
        fine_dark = morphology.majority(fine_dark, height)
    return _refine(outside, lung, fine_dark, rows, height, width, pool)


def _air_threshold(coarse: jax.Array, air_hu: float) -> jax.Array:
    """HU below which a pixel is dark, for each image: (*b 1 1).

    Values clipped by a soft-tissue window hold no air at `air_hu`; they show as a
    plateau at the image's minimum, above `air_hu`. The threshold is then a little above
    the plateau: an eighth of the way to the image's mean above it.
    """
    low = jnp.min(coarse, axis=(-2, -1), keepdims=True)
    flat = coarse <= low + 1.0
    share = jnp.mean(flat.astype(jnp.float32), axis=(-2, -1), keepdims=True)
    above = jnp.sum(jnp.where(flat, 0.0, coarse - low), axis=(-2, -1), keepdims=True)
    count = jnp.sum((~flat).astype(jnp.float32), axis=(-2, -1), keepdims=True)
    clipped = (low >= air_hu) & (share > 0.05) & (count > 0)
    mean_above = above / jnp.maximum(count, 1.0)
    return jnp.where(clipped, low + mean_above / 8, air_hu)


def _radius(radius: int, side: int) -> int:
    return round(radius * side / _GRID)


def _body(dark: jax.Array, rows: int, side: int) -> jax.Array:
    """The largest piece of tissue, without what thin bridges attach to it."""
    tissue = bit_mask.frame_like(dark, rows) & ~dark
    if side >= _GRID // 4:
        tissue = morphology.closing_disc(tissue, rows, 1)
    opened = morphology.opening_disc(tissue, rows, _radius(_OPENING, side))
    return flood_fill.largest_component(opened)


def _outside(body: jax.Array, rows: int, columns: int, side: int) -> jax.Array:
    """What a fill from the border reaches around the body with its walls closed."""
    radius = _radius(_CLOSING, side)
    around = bit_mask.frame_like(body, rows) & ~body
    closed = morphology.closing_disc(body, rows, radius)
    border = bit_mask.like(bit_mask.border(rows, columns), body)
    reached = flood_fill.flood_fill(border, around & ~closed)
    # The closing also filled notches of the outer contour: take them back.
    return morphology.grow(reached, around, 2 * radius)


def _lungs(
    dark_inside: jax.Array, gas: jax.Array, inside: jax.Array, rows: int, side: int
) -> jax.Array:
    """Dark components inside the body that are neither specks nor gas."""
    if side >= _GRID // 4:
        dark_inside = morphology.majority(dark_inside, rows)
        dark_inside = morphology.opening(dark_inside, rows)
    inside = bit_mask.frame_like(inside, rows) & inside
    body_area = bit_mask.area(inside).astype(jnp.float32)

    def worth_it(left: jax.Array, kept: jax.Array) -> jax.Array:
        del kept
        return bit_mask.area(left) > _SPECK * body_area

    def keep_lung(component: jax.Array, kept: jax.Array) -> jax.Array:
        area = bit_mask.area(component)
        # Edges are partly tissue: judge gas by the inner part.
        core = morphology.erode(component, rows)
        gaseous = 2 * bit_mask.area(core & gas) > bit_mask.area(core)
        is_lung = (area > _SPECK * body_area) & (
            ~gaseous | (area > _AIRWAY * body_area)
        )
        return kept | bit_mask.where(is_lung, component, jnp.zeros_like(component))

    return flood_fill.fold_components(dark_inside, keep_lung, worth_it)


def _connected_through_slices(lung: jax.Array) -> jax.Array:
    """The part of `lung` (*b z n w) connected to the slice that has the most of it."""
    area = bit_mask.area(lung)
    largest = jnp.argmax(area, axis=-1, keepdims=True)
    index = jnp.arange(area.shape[-1], dtype=largest.dtype)
    index = index.reshape((1,) * (area.ndim - 1) + (-1,))
    seed = bit_mask.where(index == largest, lung, jnp.zeros_like(lung))
    return flood_fill.flood_volume(seed, lung)


def _refine(
    outside: jax.Array,
    lung: jax.Array,
    fine_dark: jax.Array,
    rows: int,
    height: int,
    width: int,
    pool: int,
) -> _Words:
    """Masks at full resolution: coarse regions, whose edges `fine_dark` decides."""

    def fine(words: jax.Array) -> jax.Array:
        return _enlarge(words, rows, height, width, pool)

    # Within one coarse pixel of its edge, a region ends where the dark ends.
    lung_reach = fine(morphology.dilate_disc(lung, rows, 2))
    outside_core = fine(morphology.erode_disc(outside, rows, 2))
    outside_reach = fine(morphology.dilate_disc(outside, rows, 2))
    fine_outside = outside_core | (outside_reach & fine_dark & ~lung_reach)
    fine_lung = lung_reach & fine_dark & ~fine_outside
    return _Words(fine_outside, fine_lung)


def _pool(image: jax.Array, pool: int) -> jax.Array:
    """Means of `pool` x `pool` pixels; edge pixels are repeated to fill the last."""
    if pool == 1:
        return image
    height, width = image.shape[-2:]
    edge = [(0, 0)] * (image.ndim - 2) + [(0, -height % pool), (0, -width % pool)]
    if height % pool or width % pool:
        image = jnp.pad(image, edge, mode="edge")
    # Strided slices: a reshape and a reduction take 8 times as long on XLA:CPU.
    image = sum(image[..., i::pool, :] for i in range(pool))
    return sum(image[..., i::pool] for i in range(pool)) / pool**2


def _enlarge(
    words: jax.Array, rows: int, height: int, width: int, pool: int
) -> jax.Array:
    """Every coarse pixel as `pool` x `pool` pixels, cut to height x width."""
    if pool == 1:
        return words
    words = jnp.repeat(words, pool, axis=-1)[..., :width]
    mask = jnp.repeat(bit_mask.unpack(words, rows), pool, axis=-2)
    return bit_mask.pack(mask[..., :height, :])

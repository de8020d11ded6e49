"""Finds outside air, body and lungs of chest CT slices on noisy HU images.

These are the masks of the robust purification. They are found on a working grid about
256 pixels wide (means of p x p pixels, so p times less noise). Only their edges are
then refined at full resolution. In 2-D, for every slice:

1. dark: HU below the air threshold, half-way between lung and soft tissue.
2. body: the largest component that is not dark, after an opening that cuts off table,
   clothes and marks.
3. outside air: the area around the body that a fill from the image's border reaches.
   The body's walls are closed first, so that the fill cannot enter through gaps in a
   noisy chest wall. If the fill still covers something as thick and dark as a lung, a
   second fill also stops at the walls that the opening removed.
4. lungs: the dark components inside the body with a core of parenchyma, which is
   neither tiny nor gas (near -1000 HU). This excludes the trachea, bronchi outside the
   lung, and bowel.

With `volume`, the batch is one volume, and step 4 is that of `airways`, which tells
lungs from airways and bowel gas by the neighbours of a slice.
"""

from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from ipv2.kernels import bit_mask, flood_fill, morphology
from ipv2.purification import airways
from ipv2.purification.airways import AirSlices

# Width of the working grid in pixels. The radii below hold for it and scale with it.
_GRID = 256
_CLOSING = 4
_OPENING = 1
# Volumes are filled up to a multiple of so many slices: few lengths are compiled.
_SLICES = 32
# The smallest core of a lung, and the core that only a lung has: mattresses are as
# dark, but thinner.
_LUNG_CORE = 2
_LUNG_ONLY = 6
# An image counts as clipped if at least this share of its pixels is at its minimum.
_PLATEAU = 0.05


@dataclass(frozen=True, kw_only=True)
class AnatomyParams:
    """Thresholds of air and gas, and the 3-D option.

    Attributes:
        air_hu: HU below which a pixel is dark (air or lung).
        gas_hu: HU below which a pixel counts as gas, not lung.
        volume: whether the batch axis holds the slices of one volume, in order.
    """

    air_hu: float = -500.0
    gas_hu: float = -930.0
    volume: bool = False

    def __post_init__(self) -> None:
        """Checks the thresholds."""
        if not -1000 < self.gas_hu < self.air_hu < 0:
            raise ValueError(
                "thresholds must satisfy -1000 < gas_hu < air_hu < 0, got "
                f"gas_hu={self.gas_hu}, air_hu={self.air_hu}"
            )


class Anatomy(NamedTuple):
    """Masks of every slice; pixels in neither `outside` nor `lung` are body."""

    outside: Bool[Array, "*b h w"]
    lung: Bool[Array, "*b h w"]


class Words(NamedTuple):
    """`Anatomy` as packed masks (`kernels.bit_mask`)."""

    outside: UInt32[Array, "*b n w"]
    lung: UInt32[Array, "*b n w"]


def segment(
    image_hu: Float[Array, "*b h w"], params: AnatomyParams | None = None
) -> Anatomy:
    """Returns masks of outside air and lungs for HU images of any size.

    The lung mask holds the dark pixels of the lungs; vessels wider than a pixel or two
    are body. Table, clothes and marks are outside. An image without a body is all
    outside; one without dark pixels is all body. No gradient flows.
    """
    params = params or AnatomyParams()
    words = segment_words((image_hu,), params)
    height = image_hu.shape[-2]
    return Anatomy(*(bit_mask.unpack(mask[0], height) for mask in words))


def segment_words(
    images_hu: tuple[jax.Array, ...],
    params: AnatomyParams,
    lungs: UInt32[Array, "k *b n w"] | None = None,
) -> Words:
    """Segments several arrays of one shape, stacked along a new axis 0; packed masks.

    The stages are compiled separately: in one piece, XLA:CPU fuses the pooling into
    each of its consumers and recomputes it there, which doubles the time.

    Args:
        images_hu: the arrays, `*b h w`.
        params: thresholds. With `volume`, slices are along the axis before the rows.
        lungs: the lungs of these slices on the working grid, from `find_lungs`; the
            other slices of their volumes need not be there.
    """
    height, width = images_hu[0].shape[-2:]
    pool = max(1, round(min(height, width) / _GRID))
    coarse = _stack_pooled(images_hu, pool)
    outside, lung, inside, air_hu = _coarse_masks(coarse, params)
    if lungs is not None:
        lung = lungs
    elif params.volume:
        lung = find_lungs(_air_slices(coarse, inside), params)
    dark = _stack_dark(images_hu, air_hu)
    clipped = air_hu > params.air_hu
    return _refine(outside, lung, dark, clipped, coarse.shape[-2], height, pool)


def find_air(images_hu: tuple[jax.Array, ...], params: AnatomyParams) -> AirSlices:
    """Returns what `find_lungs` needs of slices, which can be a part of a volume.

    Args:
        images_hu: arrays `*b h w`, stacked along a new axis 0.
        params: thresholds.
    """
    height, width = images_hu[0].shape[-2:]
    coarse = _stack_pooled(images_hu, max(1, round(min(height, width) / _GRID)))
    inside = _coarse_masks(coarse, params)[2]
    return _air_slices(coarse, inside)


def find_lungs(found: AirSlices, params: AnatomyParams) -> UInt32[Array, "*b z n w"]:
    """Returns the lungs of whole volumes on the working grid, packed.

    Args:
        found: all slices `*b z` of the volumes, in order.
        params: thresholds.
    """
    *batch, slices, rows, columns = found.level.shape
    missing = ((0, 0), (0, -slices % _SLICES), (0, 0), (0, 0))

    def filled(part: jax.Array, nothing: int) -> jax.Array:
        volumes = part.reshape(-1, slices, *part.shape[-2:])
        return jnp.pad(volumes, missing, constant_values=nothing)

    air = AirSlices(filled(found.inside, 0), filled(found.level, airways.NO_AIR))
    lungs = _volume_lungs(air, params.gas_hu, min(rows, columns) / _GRID)
    return lungs[:, :slices].reshape(*batch, slices, *lungs.shape[-2:])


@partial(jax.jit, static_argnums=(1, 2))
def _volume_lungs(found: AirSlices, gas_hu: float, scale: float) -> jax.Array:
    """Returns the lungs of one volume after another."""
    return lax.map(
        lambda one: airways.volume_lungs(AirSlices(*one), gas_hu, scale), tuple(found)
    )


@jax.jit
def _air_slices(coarse: jax.Array, inside: jax.Array) -> AirSlices:
    return airways.air_slices(coarse, inside, min(coarse.shape[-2:]) / _GRID)


@partial(jax.jit, static_argnums=1)
def _stack_pooled(images_hu: tuple[jax.Array, ...], pool: int) -> jax.Array:
    """Returns means of `pool` x `pool` pixels of each array, stacked."""
    return jnp.stack([_pool(lax.stop_gradient(image), pool) for image in images_hu])


@partial(jax.jit, static_argnums=1)
def _coarse_masks(
    coarse: jax.Array, params: AnatomyParams
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns outside, lungs and air inside the body on the working grid, packed.

    Also returns the air thresholds.
    """
    rows, columns = coarse.shape[-2:]
    side = min(rows, columns)
    dark, air_hu = _dark(coarse, params.air_hu)
    gas = bit_mask.pack(coarse < params.gas_hu)
    tissue = _tissue(dark, rows, side)
    body = _body(tissue, rows, side)
    outside = _outside(body, rows, columns, side)

    drowned = _parenchyma_core(outside & dark, gas, rows, _radius(_LUNG_ONLY, side))
    # A clipped image shows no gas, so its outside air looks like lung.
    drowned = jnp.where(air_hu > params.air_hu, jnp.uint32(0), drowned)

    def rescue(outside: jax.Array) -> jax.Array:
        whole = flood_fill.flood_fill(body, tissue)
        dry = _outside(whole, rows, columns, side)
        lung = flood_fill.flood_fill(drowned, outside & ~dry & dark)
        # Include the lung's wall, which `_refine` needs.
        lung = morphology.dilate_disc(lung, rows, _radius(_CLOSING, side))
        return outside & (dry | ~lung)

    # The second fill costs as much as the first, and few images need it.
    outside = lax.cond(jnp.any(drowned != 0), rescue, lambda same: same, outside)
    inside = _inside(dark & ~outside, rows, side)
    core = _parenchyma_core(inside, gas, rows, _radius(_LUNG_CORE, side))
    return outside, flood_fill.flood_fill(core, inside), inside, air_hu


@jax.jit
def _stack_dark(images_hu: tuple[jax.Array, ...], air_hu: jax.Array) -> jax.Array:
    """Returns the pixels below the air threshold of each array, packed and stacked."""
    pairs = zip(images_hu, air_hu, strict=True)
    return jnp.stack([bit_mask.pack(image < level) for image, level in pairs])


def _dark(
    coarse: jax.Array, air_hu: float
) -> tuple[UInt32[Array, "*b n w"], Float[Array, "*b 1 1"]]:
    """Returns the pixels below each image's air threshold, packed, and the threshold.

    An image that a soft-tissue window clipped has no pixel below `air_hu`. Its air is a
    plateau at the image's minimum, above `air_hu`. The threshold then lies an eighth of
    the way from the plateau to the mean of the pixels above it.
    """
    dark = bit_mask.pack(coarse < air_hu)
    fixed = jnp.full((*coarse.shape[:-2], 1, 1), air_hu, coarse.dtype)

    def adapt(_: jax.Array) -> jax.Array:
        low = jnp.min(coarse, axis=(-2, -1), keepdims=True)
        above = coarse > low + 1.0
        count = jnp.sum(above, axis=(-2, -1), keepdims=True, dtype=jnp.int32)
        excess = jnp.where(above, coarse - low, 0.0)
        mean = jnp.sum(excess, axis=(-2, -1), keepdims=True) / jnp.maximum(count, 1)
        pixels = coarse.shape[-2] * coarse.shape[-1]
        plateau = (count > 0) & (count < (1 - _PLATEAU) * pixels)
        return jnp.where((low >= air_hu) & plateau, low + mean / 8, fixed)

    # Most images have air, so the statistics are computed only if one has none.
    no_air = jnp.any(bit_mask.area(dark) == 0)
    threshold = lax.cond(no_air, adapt, lambda fixed: fixed, fixed)
    dark = lax.cond(
        no_air,
        lambda threshold: bit_mask.pack(coarse < threshold),
        lambda _: dark,
        threshold,
    )
    return dark, threshold


def _radius(radius: int, side: int) -> int:
    return round(radius * side / _GRID)


def _tissue(dark: jax.Array, rows: int, side: int) -> jax.Array:
    """Returns the pixels that are not dark, with small holes closed."""
    tissue = bit_mask.frame_like(dark, rows) & ~dark
    if side < _GRID // 4:
        return tissue
    return morphology.closing_disc(tissue, rows, 1)


def _body(tissue: jax.Array, rows: int, side: int) -> jax.Array:
    """Returns the largest piece of tissue, without parts attached by thin bridges."""
    opened = morphology.opening_disc(tissue, rows, _radius(_OPENING, side))
    return flood_fill.largest_component(opened)


def _outside(body: jax.Array, rows: int, columns: int, side: int) -> jax.Array:
    """Returns the area around the closed body that a fill from the border reaches."""
    radius = _radius(_CLOSING, side)
    around = bit_mask.frame_like(body, rows) & ~body
    closed = morphology.closing_disc(body, rows, radius)
    border = bit_mask.like(bit_mask.border(rows, columns), body)
    reached = flood_fill.flood_fill(border, around & ~closed)
    # The closing also filled notches of the outer contour: undo that.
    return morphology.grow(reached, around, 2 * radius)


def _inside(dark_inside: jax.Array, rows: int, side: int) -> jax.Array:
    """Returns the air inside the body, without single pixels and thin lines."""
    if side < _GRID // 4:
        return dark_inside
    return morphology.opening(morphology.majority(dark_inside, rows), rows)


def _parenchyma_core(
    dark: jax.Array, gas: jax.Array, rows: int, radius: int
) -> jax.Array:
    """Returns centres of discs of `radius` in lung: dark, and mostly not gas."""
    lung = dark & ~gas
    for _ in range(2):  # 250 HU of noise puts 3 of 10 pixels on the wrong side
        lung = morphology.majority(lung, rows)
    return morphology.erode_disc(lung, rows, radius)


@partial(jax.jit, static_argnums=(4, 5, 6))
def _refine(
    outside: jax.Array,
    lung: jax.Array,
    fine_dark: jax.Array,
    clipped: jax.Array,
    rows: int,
    height: int,
    pool: int,
) -> Words:
    """Returns masks at full resolution: coarse regions with the edges of `fine_dark`.

    If a window clipped the image above the air threshold, the dark mask reaches too far
    into the edges and is eroded by a pixel.
    """
    width = fine_dark.shape[-1]
    if min(rows, outside.shape[-1]) >= _GRID // 4:
        fine_dark = morphology.majority(fine_dark, height)
        fine_dark = lax.cond(
            jnp.any(clipped),
            lambda dark: jnp.where(clipped, morphology.erode(dark, height), dark),
            lambda dark: dark,
            fine_dark,
        )

    def fine(words: jax.Array) -> jax.Array:
        return _enlarge(words, rows, height, width, pool)

    # Within one coarse pixel of its edge, a region ends where the dark ends.
    lung_reach = fine(morphology.dilate_disc(lung, rows, 2))
    outside_core = fine(morphology.erode_disc(outside, rows, 2))
    outside_reach = fine(morphology.dilate_disc(outside, rows, 2))
    fine_outside = outside_core | (outside_reach & fine_dark & ~lung_reach)
    fine_lung = lung_reach & fine_dark & ~fine_outside
    return Words(fine_outside, fine_lung)


def _pool(image: jax.Array, pool: int) -> jax.Array:
    """Returns means of `pool` x `pool` pixels; edge pixels pad the last ones."""
    if pool == 1:
        return image
    height, width = image.shape[-2:]
    edge = [(0, 0)] * (image.ndim - 2) + [(0, -height % pool), (0, -width % pool)]
    if height % pool or width % pool:
        image = jnp.pad(image, edge, mode="edge")
    # Strided slices: a reshape and a reduction take 8 times as long on XLA:CPU.
    rows = reduce(jnp.add, [image[..., i::pool, :] for i in range(pool)])
    return reduce(jnp.add, [rows[..., i::pool] for i in range(pool)]) / pool**2


def _enlarge(
    words: jax.Array, rows: int, height: int, width: int, pool: int
) -> jax.Array:
    """Enlarges every pixel to `pool` x `pool` pixels and crops to height x width."""
    if pool == 1:
        return words
    words = jnp.repeat(words, pool, axis=-1)[..., :width]
    mask = jnp.repeat(bit_mask.unpack(words, rows), pool, axis=-2)
    return bit_mask.pack(mask[..., :height, :])

"""Nodules of known size and contrast, inserted into truth before its dose is lowered.

What a denoiser does to detail cannot be read off real nodules: nobody knows their true
edge. So known ones are put into the truth, the low dose of that truth is simulated, and
`nodule_metrics` and `observer` say what any output kept of them:

    half = patch_half_px(NODULES["lung"], spacing_mm, sharpness)
    mask = place_masks(background, lung, margin_px)["lung"]
    drawn = draw_nodules(rng, mask, NODULES["lung"], count=16, half_px=half)
    truth = insert_nodules(background, drawn, spacing_mm, sharpness, half_px=half)
    low_dose = simulate_low_dose(noise_rng, truth, spacing_mm, dose_params)

A nodule of lung is a sphere with an HU of its own, which replaces the lung's. It is cut
by the slice: with a slice thickness t, a pixel's share of nodule is a mean over t. A
nodule of soft tissue is a disc that adds its contrast, as in a low-contrast phantom.

Half of the places stay empty, for an observer to tell apart.

Nodules are centred on pixels, so that patches around them can be averaged. Patches have
2 `half_px` + 1 pixels a side, see `patch_half_px`; they never overlap.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ipv2.kernels import bit_mask, morphology
from ipv2.kernels.photon_counts import slice_keys
from ipv2.kernels.smoothing import gaussian

Shape = Literal["sphere", "disc"]

# A place holds no nodule.
EMPTY = -1
# A blurred nodule ends within this many deviations of its edge.
_TAIL = 3.0
# A patch shows this many radii of the largest nodule: its neighbourhood is part of it.
_RADII = 1.5
# Least and most blur of an image, deviation in pixels.
SHARPNESS_PX = (0.3, 2.5)
# The lung's place mask: HU of the image smoothed by 3 pixels, free of large vessels.
_LUNG_HU, _SOFT_HU, _SMOOTH_PX = (-970.0, -700.0), (-10.0, 120.0), 3.0
_FILL_PX = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nodule:
    """A kind of nodule.

    Attributes:
      diameter_mm: above 0.
      hu: of a sphere its HU; of a disc its contrast, added to what is there, not 0.
      shape: sphere or disc.
    """

    diameter_mm: float
    hu: float
    shape: Shape = "sphere"

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if not self.diameter_mm > 0:
            raise ValueError(f"diameter_mm: got {self.diameter_mm}, accepted: above 0")
        if self.shape == "disc" and self.hu == 0:
            raise ValueError("hu: got 0 of a disc, accepted: a contrast other than 0")

    def __str__(self) -> str:
        """Returns the kind in words, such as '6 mm of -600 HU' or '10 mm, +15 HU'."""
        if self.shape == "sphere":
            return f"{self.diameter_mm:g} mm of {self.hu:g} HU"
        return f"{self.diameter_mm:g} mm, {self.hu:+g} HU"


# Ground glass, part solid and solid nodules of lung; lesions of low contrast.
NODULES: Mapping[str, tuple[Nodule, ...]] = MappingProxyType(
    {
        "lung": tuple(
            Nodule(diameter_mm=diameter, hu=hu)
            for hu in (-600.0, -100.0, 100.0)
            for diameter in (4.0, 6.0, 10.0)
        ),
        "soft": tuple(
            Nodule(diameter_mm=diameter, hu=hu, shape="disc")
            for hu in (-20.0, 15.0)
            for diameter in (6.0, 10.0)
        ),
    }
)


class DrawnNodules(NamedTuple):
    """Places in slices, and what is there; arrays only.

    Attributes:
      centre_px: `*b n 2` int32 row and column.
      kind: `*b n` int32, index of the nodule, or `EMPTY`.
      found: `*b n` bool; the mask had no room for the others, which do not count.
      diameter_mm: `*b n`, 0 where empty.
      hu: `*b n`, see `Nodule`.
      disc: `*b n` bool.
    """

    centre_px: Int[Array, "*b n 2"]
    kind: Int[Array, "*b n"]
    found: Bool[Array, "*b n"]
    diameter_mm: Float[Array, "*b n"]
    hu: Float[Array, "*b n"]
    disc: Bool[Array, "*b n"]


def patch_half_px(
    nodules: Sequence[Nodule],
    smallest_spacing_mm: float | int,
    sharpness_px: float | int = SHARPNESS_PX[1],
) -> int:
    """Returns the pixels from a patch's middle to its border.

    A patch holds 1.5 radii of the largest nodule and 3 deviations of its blur.

    Args:
      nodules: of the slices.
      smallest_spacing_mm: smallest pixel size of the slices, above 0.
      sharpness_px: largest sharpness of the slices.

    Raises:
      ValueError: There is no nodule, or the spacing is not above 0.
    """
    if not nodules or not smallest_spacing_mm > 0:
        raise ValueError(
            f"a patch needs a nodule and a pixel size above 0 mm, got {len(nodules)} "
            f"nodules and {smallest_spacing_mm} mm"
        )
    radius_px = max(n.diameter_mm for n in nodules) / 2 / smallest_spacing_mm
    return math.ceil(_RADII * radius_px + _TAIL * sharpness_px)


def place_masks(
    truth_hu: Float[Array, "*b h w"], lung: Bool[Array, "*b h w"], margin_px: int
) -> dict[str, Bool[Array, "*b h w"]]:
    """Returns {'lung', 'soft'}: pixels where a nodule may be centred.

    Lung: inside the filled lungs, `margin_px` from the pleura, with a mean of -970 to
    -700 HU around (sigma 3 pixels), so that large vessels are left out. Soft: soft
    tissue of -10 to 120 HU, smoothed alike, `margin_px` from any other tissue.

    Args:
      truth_hu: HU.
      lung: rough mask of the lungs; it may omit vessels.
      margin_px: of the largest nodule: radius and blur.
    """
    height = truth_hu.shape[-2]
    smooth = gaussian(truth_hu, _SMOOTH_PX)

    def inner(mask: Array) -> Array:
        words = morphology.erode_disc(mask, height, margin_px)
        return bit_mask.unpack(words, height)

    fill = max(1, round(_FILL_PX * min(truth_hu.shape[-2:]) / 512))
    filled = morphology.closing_disc(bit_mask.pack(lung), height, fill)
    thin = (smooth >= _LUNG_HU[0]) & (smooth < _LUNG_HU[1])
    soft = (smooth >= _SOFT_HU[0]) & (smooth < _SOFT_HU[1])
    return {"lung": inner(filled) & thin, "soft": inner(bit_mask.pack(soft))}


def draw_nodules(
    rng: Array,
    mask: Bool[Array, "*b h w"],
    nodules: Sequence[Nodule],
    *,
    count: int,
    half_px: int,
) -> DrawnNodules:
    """Draws places of the mask and what is there: a nodule at every other one.

    Places are uniform over the mask, whole patches inside the image, and 2 half_px + 1
    pixels apart along a row or a column, so that patches do not overlap. The kinds of
    a slice are as even as its places allow. A slice's draw depends on its key alone.

    Args:
      rng: one key, or one for each slice.
      mask: where a nodule may be centred, see `place_masks`.
      nodules: kinds, one or more.
      count: places of each slice, 2 or more, half of them empty.
      half_px: see `patch_half_px`.

    Raises:
      ValueError: There is no kind, fewer than 2 places, or the image is smaller than a
        patch.
    """
    batch, (h, w) = mask.shape[:-2], mask.shape[-2:]
    if not nodules or count < 2:
        raise ValueError(f"got {len(nodules)} nodules, {count} places: at least 1, 2")
    if min(h, w) <= 2 * half_px:
        raise ValueError(
            f"an image of {h} x {w} pixels holds no patch of {2 * half_px + 1} pixels"
        )
    keys = slice_keys(rng, batch)
    flat = mask.reshape(-1, h, w)
    centre, found = jax.vmap(_draw_places, (0, 0, None, None))(
        keys, flat, count, half_px
    )
    kind = jax.vmap(_draw_kinds, (0, None, None))(keys, len(nodules), count)

    def of_kind(values: Sequence[Any], empty: Any) -> Array:
        return jnp.asarray([*values, empty])[kind].reshape(*batch, count)

    return DrawnNodules(
        centre_px=centre.reshape(*batch, count, 2),
        kind=kind.reshape(*batch, count),
        found=found.reshape(*batch, count),
        diameter_mm=of_kind([float(n.diameter_mm) for n in nodules], 0.0),
        hu=of_kind([float(n.hu) for n in nodules], 0.0),
        disc=of_kind([n.shape == "disc" for n in nodules], False),
    )


def _draw_places(
    key: Array, mask: Array, count: int, half_px: int
) -> tuple[Array, Array]:
    """Draws places one after another; each takes its neighbourhood from the mask."""
    h, w = mask.shape
    row, column = jnp.arange(h)[:, None], jnp.arange(w)[None]
    inside = (row >= half_px) & (row < h - half_px)
    inside = inside & (column >= half_px) & (column < w - half_px)
    # A uniform field's largest value is a uniform draw from what is left of the mask.
    field = jax.random.uniform(jax.random.fold_in(key, 0), (h, w))
    field = jnp.where(mask & inside, field, -1.0)

    def step(field: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        best = jnp.argmax(field)
        at_row, at_column = best // w, best % w
        found = field[at_row, at_column] >= 0
        centre = jnp.stack([at_row, at_column])
        # A place that was not found still needs a patch inside the image.
        centre = jnp.where(found, centre, half_px).astype(jnp.int32)
        near = (abs(row - at_row) <= 2 * half_px) & (
            abs(column - at_column) <= 2 * half_px
        )
        return jnp.where(near, -1.0, field), (centre, found)

    return jax.lax.scan(step, field, None, length=count)[1]


def _draw_kinds(key: Array, kinds: int, count: int) -> Array:
    """Returns (count,) kinds in a random order, and `EMPTY` at every other place."""
    present = -(-count // 2)
    order = jax.random.permutation(jax.random.fold_in(key, 1), kinds)
    drawn = jnp.full(count, EMPTY, jnp.int32)
    return drawn.at[::2].set(order[jnp.arange(present) % kinds].astype(jnp.int32))

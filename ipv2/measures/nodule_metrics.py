"""What an output kept of nodules that were put into its truth: contrast, size, density.

For each nodule, with image I, truth T and the background B without nodules:

    contrast_kept      a of the least squares fit  I - B = a (T - B) + constant
    density_error_hu   mean of I - T over the core: within half a radius, or a pixel
    diameter_error_mm  diameter at half of the core's height: of I - B, less of T - B

The constant is what a denoiser did to the neighbourhood. Contrast is measured with all
of a nodule's pixels. Density is what a radiologist would read in the middle.

The diameter comes from the profile: means over circles, 0 to 1.5 radii, less the mean
of what lies further than 2.5 pixels outside. It is NaN where the profile does not fall
below half within 1.5 radii. Noise of a single nodule moves it: one of 15 HU in noise of
40 HU has no diameter. `summarise_nodules` therefore averages profiles first.

The truth must be aligned with the image.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ipv2.kernels.photon_noise import slice_spacing
from ipv2.measures.intervals import Summary, summarise
from ipv2.measures.nodule_insertion import cut_patches
from ipv2.measures.nodules import EMPTY, DrawnNodules, Nodule

# Radii of the profile over the nodule's radius.
PROFILE_RADII = np.linspace(0, 1.5, 31)
_CORE = 0.5
# The neighbourhood starts this far outside the nodule, pixels.
_OUTSIDE_PX = 2.5
_RESAMPLED, _PERCENT = 2000, (2.5, 97.5)


class NoduleNumbers(NamedTuple):
    """Numbers of every place; NaN where there is no nodule.

    Attributes:
      contrast_kept: `*b n`, 1 for the truth.
      density_error_hu: `*b n`, 0 for the truth.
      diameter_error_mm: `*b n`, 0 for the truth.
      profile_hu: `*b n k`, the image's contrast at `PROFILE_RADII`.
      truth_profile_hu: `*b n k`.
    """

    contrast_kept: Float[Array, "*b n"] | Float[np.ndarray, "*b n"]
    density_error_hu: Float[Array, "*b n"] | Float[np.ndarray, "*b n"]
    diameter_error_mm: Float[Array, "*b n"] | Float[np.ndarray, "*b n"]
    profile_hu: Float[Array, "*b n k"] | Float[np.ndarray, "*b n k"]
    truth_profile_hu: Float[Array, "*b n k"] | Float[np.ndarray, "*b n k"]


class NoduleSummary(NamedTuple):
    """What an output kept of a kind of nodule.

    Attributes:
      count: nodules.
      contrast_kept: mean over nodules with its interval.
      density_error_hu: mean over nodules with its interval.
      diameter_error_mm: of the mean profile; None if it has no diameter.
      diameter_low_mm: lower end of its 95 % interval; None where more than 2.5 % of the
        resamplings have no diameter, or below two groups.
      diameter_high_mm: upper end.
    """

    count: int
    contrast_kept: Summary
    density_error_hu: Summary
    diameter_error_mm: float | None
    diameter_low_mm: float | None
    diameter_high_mm: float | None


def nodule_numbers(
    image_hu: Float[Array, "*b h w"],
    truth_hu: Float[Array, "*b h w"],
    background_hu: Float[Array, "*b h w"],
    drawn: DrawnNodules,
    spacing_mm: Any,
    *,
    half_px: int,
) -> NoduleNumbers:
    """Returns the numbers of every nodule.

    Args:
      image_hu: HU; an output, or the low dose itself.
      truth_hu: the image with the nodules, before its dose was lowered, HU.
      background_hu: the truth before the nodules were inserted, HU.
      drawn: the nodules.
      spacing_mm: size of the square pixels: a number, one per slice, or (row, column)s.
      half_px: as they were drawn with.
    """
    batch = drawn.kind.shape[:-1]
    spacing = slice_spacing(spacing_mm, batch).reshape(*batch, 1)
    image, truth, background = (
        cut_patches(a, drawn.centre_px, half_px)
        for a in (image_hu, truth_hu, background_hu)
    )
    there = drawn.found & (drawn.kind != EMPTY)
    radius_px = jnp.where(there, drawn.diameter_mm / 2 / spacing, 1.0)
    distance = jnp.asarray(_distances_px(half_px))
    signal, change = truth - background, image - background

    def mean(values: Array, weight: Array) -> Array:
        return jnp.sum(values * weight, (-2, -1)) / jnp.sum(weight, (-2, -1))

    shape = jnp.expand_dims(radius_px, (-2, -1))
    distance = jnp.broadcast_to(distance, image.shape)
    core = (distance <= jnp.maximum(_CORE * shape, 1.0)).astype(image.dtype)
    outside = (distance > shape + _OUTSIDE_PX).astype(image.dtype)
    form = signal - jnp.mean(signal, axis=(-2, -1), keepdims=True)
    power = jnp.sum(jnp.square(form), axis=(-2, -1))
    kept = jnp.sum(form * change, axis=(-2, -1)) / jnp.where(there, power, 1.0)
    profiles = [
        _profile(a, distance, shape) - mean(a, outside)[..., None]
        for a in (change, signal)
    ]
    diameters = [profile_diameter(profile) for profile in profiles]
    error = (diameters[0] - diameters[1]) * radius_px * spacing

    def known(values: Array) -> Array:
        return jnp.where(there, values, jnp.nan)

    return NoduleNumbers(
        contrast_kept=known(kept),
        density_error_hu=known(mean(image - truth, core)),
        diameter_error_mm=known(error),
        profile_hu=profiles[0],
        truth_profile_hu=profiles[1],
    )


def profile_diameter(profile_hu: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """Returns the width at half of a profile's core, in radii of the nodule (2: exact).

    The core is the mean within half a radius. The width is where the profile, from
    there outwards, first falls below half; NaN if it does not, or the core is 0.
    """
    core = jnp.mean(profile_hu[..., PROFILE_RADII <= _CORE], axis=-1, keepdims=True)
    relative = profile_hu / jnp.where(core == 0, jnp.nan, core)
    outside = jnp.broadcast_to(PROFILE_RADII > _CORE, relative.shape)
    below = (relative < 0.5) & outside
    after = jnp.argmax(below, axis=-1, keepdims=True)
    before = jnp.maximum(after - 1, 0)
    high = jnp.take_along_axis(relative, before, axis=-1)
    low = jnp.take_along_axis(relative, after, axis=-1)
    share = jnp.clip((high - 0.5) / jnp.where(high > low, high - low, 1.0), 0, 1)
    step = float(PROFILE_RADII[1] - PROFILE_RADII[0])
    radius = (before + share) * step
    return jnp.where(jnp.any(below, axis=-1), 2 * radius[..., 0], jnp.nan)


def summarise_nodules(
    numbers: NoduleNumbers,
    kind: Int[np.ndarray, "s n"],
    found: Bool[np.ndarray, "s n"],
    nodules: Sequence[Nodule],
    groups: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, NoduleSummary]:
    """Returns {kind in words: what an output kept of it}.

    Intervals are 95 % percentile bootstraps over groups, see `intervals`.

    Args:
      numbers: of s slices.
      kind: of every place, from `DrawnNodules`.
      found: of every place.
      nodules: the kinds.
      groups: of each slice, from `intervals.resampled_groups`.
      seed: of the resampling.
    """
    names = np.repeat(np.asarray(groups)[:, None], np.asarray(kind).shape[1], axis=1)
    result = {}
    for index, nodule in enumerate(nodules):
        used = (np.asarray(kind) == index) & np.asarray(found)
        of = list(names[used])
        profiles = [
            np.asarray(p, np.float64)[used]
            for p in (numbers.profile_hu, numbers.truth_profile_hu)
        ]
        error, low, high = _diameter_error(profiles, of, nodule.diameter_mm, seed)
        result[str(nodule)] = NoduleSummary(
            int(used.sum()),
            summarise(np.asarray(numbers.contrast_kept)[used], of, seed=seed),
            summarise(np.asarray(numbers.density_error_hu)[used], of, seed=seed),
            *(error, low, high),
        )
    return result


def _diameter_error(
    profiles: Sequence[np.ndarray], groups: Sequence[str], diameter_mm: float, seed: int
) -> tuple[float | None, float | None, float | None]:
    """Returns the error of the mean profile's diameter, and its interval, mm."""
    if not groups:
        return None, None, None
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    totals = [np.zeros((len(names), p.shape[1])) for p in profiles]
    for total, profile in zip(totals, profiles, strict=True):
        np.add.at(total, index, profile)
    counts = np.bincount(index)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLED
    )
    drawn = np.concatenate([np.ones((1, len(names))), drawn])
    image, truth = (
        profile_diameter(jnp.asarray((drawn @ t) / (drawn @ counts)[:, None]))
        for t in totals
    )
    errors = (np.asarray(image) - np.asarray(truth)) * diameter_mm / 2
    value = float(errors[0]) if np.isfinite(errors[0]) else None
    unknown = np.mean(~np.isfinite(errors[1:]))
    if len(names) < 2 or unknown > (100 - _PERCENT[1]) / 100:
        return value, None, None
    low, high = np.nanpercentile(errors[1:], _PERCENT)
    return value, float(low), float(high)


def summary_to_json(summary: Mapping[str, NoduleSummary]) -> dict[str, Any]:
    """Returns the summary as mappings that JSON can hold."""
    return {
        name: {
            **one._asdict(),
            "contrast_kept": one.contrast_kept._asdict(),
            "density_error_hu": one.density_error_hu._asdict(),
        }
        for name, one in summary.items()
    }


def _distances_px(half_px: int) -> np.ndarray:
    """Returns (p, p) distances from a patch's middle, pixels."""
    axis = np.arange(-half_px, half_px + 1, dtype=np.float32)
    return np.hypot(axis[:, None], axis[None])


def _profile(patches: Array, distance_px: Array, radius_px: Array) -> Array:
    """Returns `*b k` means over circles, with weights that fall to 0 within a pixel."""

    def at(share: Array) -> Array:
        weight = jnp.maximum(1 - jnp.abs(distance_px - share * radius_px), 0.0)
        total = jnp.sum(weight, axis=(-2, -1))
        return jnp.sum(weight * patches, axis=(-2, -1)) / jnp.maximum(total, 1e-6)

    rows = jax.lax.map(at, jnp.asarray(PROFILE_RADII, patches.dtype))
    return jnp.moveaxis(rows, 0, -1)

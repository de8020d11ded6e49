"""Image purification: an aligned training pair from two misaligned breaths.

IPv1 (arXiv 2510.07492) and IPv2 (arXiv 2602.19314), on `*b h w` arrays:

    CM      = D(lq) or D(gt)                                      common_mask
    IPv1:   lq_bar = CM gt + (1 - CM) ((1 - T) lq + T gt)
            gt_bar = CM lq + (1 - CM) gt
    IPv2:   CM_lung = CM without the outside air                  remove_background
            lq_bar = CM_lung N(gt) + (1 - CM_lung) lq, target gt  add_noise
            gt_bar = CM_lung W(lq) + (1 - CM_lung) gt, test label  remove_noise

D is the dark mask (air inside and outside the body), N a low-dose simulation, W a weak
denoiser. The masks have two variants:

* `reference`: the published steps on 8-bit grey images, faults included. Grey levels
  given as float32 are first rounded to 8 bits and returned as whole levels. HU are
  blended unrounded, with masks made in the window.
* `robust` (default): `purification.anatomy` on HU. D(x) = outside air or lung of x, and
  CM_lung = lung(lq) or lung(gt).

IPv2 leaves some structure misaligned: outside CM_lung the input is lq and the target is
gt. So vessels wider than the mask's grain, the mediastinum and, unlike in IPv1, the
body's outer contour keep their place in each breath. `align_contour` adds the pixels
that are outside air in only one breath to CM_lung, which aligns the contour too.

With `anatomy.volume`, robust masks need all slices of a volume. Where these do not fit
in one batch, `air_of_pair` takes the slices batch by batch, `lungs_of_pair` takes what
it returned, joined, and `purify` takes the lungs of its batch: the same masks, bit for
bit.

Masks are constants: gradients flow only through the blends, N and W.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Num, UInt32

from ipv2.kernels import bit_mask, flood_fill, morphology, otsu, photon_noise
from ipv2.kernels.reference_noise import simulate_reference_noise
from ipv2.kernels.smoothing import gaussian, median
from ipv2.kernels.total_variation import total_variation
from ipv2.purification.airways import AirSlices
from ipv2.purification.anatomy import (
    AnatomyParams,
    Words,
    find_air,
    find_lungs,
    segment_words,
)

VERSIONS = ("v1", "v2")
VARIANTS = ("robust", "reference")
UNITS = ("hu", "grey")
ADD_NOISE = ("none", "reference", "physical")
REMOVE_NOISE = ("none", "tv", "gaussian", "median")

# Lungs on the working grid, packed, of lq and gt.
Lungs: TypeAlias = UInt32[Array, "2 *b n w"]

# Background pixels are below this value; table foam and clothes are above it.
_CLEAR_AIR_HU = -850.0


@dataclass(frozen=True, kw_only=True)
class PurifyParams:
    """How a pair is purified. Hashable: a static argument of jitted functions.

    Attributes:
        version: `v1` or `v2`, read only by `purify`.
        variant: variant of the masks, `robust` or `reference`.
        units: units of the images: `hu`, or `grey` levels 0 ... 255.
        window: (centre, width) in HU of grey levels 0 ... 255. For HU images,
            `reference` makes its masks and its noise in this window. For grey images,
            `robust`, N and W use it to convert to HU.
        remove_background: whether to use CM_lung; if False, CM takes its place.
        add_noise: kind of N; `none` blends gt without noise.
        remove_noise: kind of W; `none` blends lq unchanged.
        t: T of IPv1, 0 ... 1, read only by `purify`.
        dose: the scan that the physical N simulates.
        reference_mas: mAs of the reference N.
        tv_weight_hu: weight of `tv`; about the noise's standard deviation.
        tv_iterations: iterations of `tv`.
        gaussian_sigma_px: sigma of `gaussian`.
        median_size: size of `median`, 3 or 5 pixels.
        anatomy: thresholds of `robust`, and its 3-D option.
        align_contour: with `robust` and remove_background, also blend where only one
            breath has outside air.
    """

    version: str = "v2"
    variant: str = "robust"
    units: str = "hu"
    window: Sequence[float | int] = (-600.0, 1500.0)
    remove_background: bool = True
    add_noise: str = "physical"
    remove_noise: str = "tv"
    t: float | int = 0.1
    dose: photon_noise.DoseParams = field(
        default_factory=lambda: photon_noise.DoseParams(dose=0.02)
    )
    reference_mas: float | int = 2.5
    tv_weight_hu: float | int = 40.0
    tv_iterations: int = 30
    gaussian_sigma_px: float | int = 1.0
    median_size: int = 5
    anatomy: AnatomyParams = field(default_factory=AnatomyParams)
    align_contour: bool = False

    def __post_init__(self) -> None:
        """Checks every value."""
        _check_choice("version", self.version, VERSIONS)
        _check_choice("variant", self.variant, VARIANTS)
        _check_choice("units", self.units, UNITS)
        _check_choice("add_noise", self.add_noise, ADD_NOISE)
        _check_choice("remove_noise", self.remove_noise, REMOVE_NOISE)
        _check_choice("median_size", self.median_size, (3, 5))
        if len(self.window) != 2 or not self.window[1] > 0:
            raise ValueError(
                "window must be (centre, width) in HU with a width above 0, such as "
                f"(-600, 1500), got {self.window}"
            )
        # A list from a config file would not hash.
        object.__setattr__(self, "window", tuple(float(v) for v in self.window))
        _check_t(self.t)
        for name in ("reference_mas", "tv_weight_hu", "gaussian_sigma_px"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.tv_iterations < 1:
            raise ValueError(
                f"tv_iterations must be at least 1, got {self.tv_iterations}"
            )
        if self.align_contour and self.variant == "reference":
            raise ValueError(
                "align_contour needs variant='robust': the reference variant follows "
                "the published steps"
            )

    @property
    def needs_spacing(self) -> bool:
        """Whether the size of a pixel decides the pair."""
        return self.version == "v2" and self.add_noise == "physical"


class Purified(NamedTuple):
    """An aligned pair.

    Attributes:
        lq_bar: training input, in the unit and dtype of the input images.
        gt_bar: test label, in the unit and dtype of the input images.
        lung_mask: the blend's weight, 0 ... 1: CM_lung, or CM if the background is
            not removed (IPv1). The reference variant holds 254/255 where both are dark.
    """

    lq_bar: Num[Array, "*b h w"]
    gt_bar: Num[Array, "*b h w"]
    lung_mask: Float32[Array, "*b h w"]


class Regions(NamedTuple):
    """Masks for measurements, eroded away from every edge."""

    background: Bool[Array, "*b h w"]
    lung: Bool[Array, "*b h w"]
    body: Bool[Array, "*b h w"]


def purify(
    rng: Array,
    lq: Num[Array, "..."],
    gt: Num[Array, "..."],
    spacing_mm: Any,
    params: PurifyParams | None = None,
    lungs: Lungs | None = None,
) -> Purified:
    """Runs `purify_v1` (with `params.t`) or `purify_v2`, by `params.version`."""
    params = params or PurifyParams()
    if params.version == "v1":
        return purify_v1(lq, gt, t=params.t, params=params, lungs=lungs)
    return purify_v2(rng, lq, gt, spacing_mm, params, lungs)


def air_of_pair(
    lq: Num[Array, "*b h w"], gt: Num[Array, "*b h w"], params: PurifyParams
) -> AirSlices:
    """Returns what `lungs_of_pair` needs of slices, along a new leading axis: lq, gt.

    The slices can be a part of a volume: each one's result depends on itself alone.
    """
    return find_air((_to_hu(lq, params), _to_hu(gt, params)), params.anatomy)


def lungs_of_pair(found: AirSlices, params: PurifyParams) -> Lungs:
    """Returns the lungs of both volumes, packed, on the working grid of `anatomy`.

    Args:
        found: from `air_of_pair`, for all slices of the volumes, in order.
        params: how to purify.
    """
    return find_lungs(found, params.anatomy)


def purify_v1(
    lq: Num[Array, "..."],
    gt: Num[Array, "..."],
    *,
    t: float | int = 0.1,
    params: PurifyParams | None = None,
    lungs: Lungs | None = None,
) -> Purified:
    """Purifies by IPv1: exchanges the dark regions of input and label.

    Args:
        lq: low-dose images, HU float32, or grey levels with `params.units='grey'`
            (uint8 stays uint8, rounded to nearest with ties to even).
        gt: normal-dose images of the other breath, same shape and dtype.
        t: share of gt blended into lq outside the dark regions, 0 ... 1.
        params: parameters of the masks; noise options do not apply.
        lungs: from `lungs_of_pair`, of these slices, if they are a part of a volume.

    Returns:
        lq_bar, gt_bar and CM.
    """
    params = params or PurifyParams()
    _check_pair(lq, gt, params)
    _check_t(t)
    x, y = _published_levels(lq, params), _published_levels(gt, params)
    mask = common_mask(x, y, params, lungs)
    if x.dtype != jnp.uint8:
        return _blend_v1(mask, x, y, t)
    found = _look_up_v1(mask, x, y, _blended_levels(float(t)))
    return _in_dtype(found, lq.dtype)


def purify_v2(
    rng: Array,
    lq: Num[Array, "..."],
    gt: Num[Array, "..."],
    spacing_mm: Any,
    params: PurifyParams | None = None,
    lungs: Lungs | None = None,
) -> Purified:
    """Purifies by IPv2: realistic noise in the input's lungs, less in the label's.

    With all three modules off this is `purify_v1` with T = 0.

    Args:
        rng: for N: one key, or keys of shape `*b`; see `photon_noise`.
        lq: low-dose images, see `purify_v1`.
        gt: normal-dose images of the other breath.
        spacing_mm: pixel size, read only by the physical N: one number, one per slice,
            or (row, column).
        params: how to purify.
        lungs: from `lungs_of_pair`, of these slices, if they are a part of a volume.

    Returns:
        lq_bar (training input, its target is gt), gt_bar (test label of lq), CM_lung.
    """
    params = params or PurifyParams()
    _check_pair(lq, gt, params)
    x, y = _published_levels(lq, params), _published_levels(gt, params)
    if params.remove_background:
        mask = remove_background(x, y, params, lungs)
    else:
        mask = common_mask(x, y, params, lungs)
    noisy_gt = add_noise(rng, y, spacing_mm, params)
    quiet_lq = remove_noise(x, params)
    return _in_dtype(_blend_v2(mask, x, y, noisy_gt, quiet_lq), lq.dtype)


def common_mask(
    lq: Num[Array, "*b h w"],
    gt: Num[Array, "*b h w"],
    params: PurifyParams,
    lungs: Lungs | None = None,
) -> Float32[Array, "*b h w"]:
    """Returns ``CM = D(lq) or D(gt)`` as a weight.

    The reference variant adds two uint8 masks: 255 + 255 wraps to 254.
    """
    height = lq.shape[-2]
    if params.variant == "reference":
        both, one = _added_masks(lq, gt, params)
        return _wrapped_weight(both, one, height)
    found = _anatomies(lq, gt, params, lungs)
    dark = found.outside | found.lung
    return _weight(dark[0] | dark[1], height)


def remove_background(
    lq: Num[Array, "*b h w"],
    gt: Num[Array, "*b h w"],
    params: PurifyParams,
    lungs: Lungs | None = None,
) -> Float32[Array, "*b h w"]:
    """Returns ``CM_lung``, the common mask without the outside air, as a weight.

    Reference: the dark pixels 4-connected to corner (0, 0) leave the mask. The fill
    does not distinguish pixels where both images are dark (254) from those where one is
    (255): the published one runs on a copy of CM thresholded at 200. If the corner is
    not dark, nothing is removed.

    Robust: lung(lq) or lung(gt); with `align_contour` also the pixels where only one
    of the two images has outside air.
    """
    height = lq.shape[-2]
    if params.variant == "reference":
        both, one = _added_masks(lq, gt, params)
        return _wrapped_weight(*_reference_fill(both, one, height), height)
    found = _anatomies(lq, gt, params, lungs)
    mask = found.lung[0] | found.lung[1]
    if params.align_contour:
        mask = mask | (found.outside[0] ^ found.outside[1])
    return _weight(mask, height)


def add_noise(
    rng: Array,
    image: Num[Array, "*b h w"],
    spacing_mm: Any,
    params: PurifyParams | None = None,
) -> Num[Array, "*b h w"]:
    """Returns ``N(image)``, a simulation of the low dose, in the image's unit.

    `physical` adds photon noise in HU. `reference` is the published recipe on 8-bit
    grey levels. It stretches each image from its minimum to its maximum, which loses
    the HU; it darkens images whose body reaches outside the inscribed circle (one image
    by 70 grey levels on average); and it takes only square images. `none` returns the
    image.
    """
    params = params or PurifyParams()
    _check_image("image", image, params)
    if params.add_noise == "none":
        return image
    if params.add_noise == "physical":
        noisy_hu = photon_noise.simulate_low_dose(
            rng, _to_hu(image, params), spacing_mm, params.dose
        )
        return _from_hu(noisy_hu, image, params)
    grey = simulate_reference_noise(
        rng, _to_grey(image, params), mas=params.reference_mas
    )
    if params.units == "hu":
        return _grey_to_hu(grey, params).astype(image.dtype)
    return grey.astype(image.dtype)


@partial(jax.jit, static_argnums=1)
def remove_noise(
    image: Num[Array, "*b h w"], params: PurifyParams | None = None
) -> Num[Array, "*b h w"]:
    """Returns ``W(image)``, the image after a weak denoiser, in the image's unit.

    `tv` (total variation), `gaussian` or `median`; `none` returns the image.
    """
    params = params or PurifyParams()
    _check_image("image", image, params)
    if params.remove_noise == "none":
        return image
    hu = _to_hu(image, params)
    if params.remove_noise == "tv":
        quiet = total_variation(hu, params.tv_weight_hu, params.tv_iterations)
    elif params.remove_noise == "gaussian":
        quiet = gaussian(hu, params.gaussian_sigma_px)
    else:
        quiet = median(hu, params.median_size)
    return _from_hu(quiet, image, params)


def regions(
    image_hu: Float32[Array, "*b h w"],
    params: AnatomyParams | None = None,
) -> Regions:
    """Returns background, lung and body masks to measure noise and bias by region.

    Background is air outside the body, without table, clothes and marks. Lung is
    parenchyma without vessels. Body is soft tissue and bone. Each mask is eroded by 3
    pixels at 512 (lung: 2), so that edges and small misalignments do not count.
    """
    params = params or AnatomyParams()
    height = image_hu.shape[-2]
    outside, lung = (mask[0] for mask in segment_words((image_hu,), params))
    air = bit_mask.pack(image_hu < params.air_hu)
    clear = bit_mask.pack(image_hu < _CLEAR_AIR_HU)
    inside = bit_mask.frame_like(air, height) & ~outside
    margin = max(1, round(3 * min(image_hu.shape[-2:]) / 512))
    # The majority misses a table one pixel thin, so `air` excludes its bright pixels.
    background = outside & air & morphology.majority(clear, height)
    tissue = inside & ~lung & ~morphology.majority(air, height)
    masks = (
        morphology.erode_disc(background, height, margin),
        morphology.erode_disc(lung, height, max(1, margin - 1)),
        morphology.erode_disc(tissue, height, margin),
    )
    return Regions(*(bit_mask.unpack(mask, height) for mask in masks))


def dark_mask(grey: Num[Array, "*b h w"], height: int) -> UInt32[Array, "*b n w"]:
    """Returns IPv1's ``D``, packed: Otsu, opening, neighbour filter.

    # Departs from the published code, which passes a threshold of 10: Otsu overrides
    # it, so this function has no such parameter.
    """
    threshold = otsu.otsu_threshold(grey)[..., None, None]
    dark = bit_mask.pack(grey.astype(jnp.int32) <= threshold)
    return morphology.has_neighbour(morphology.opening(dark, height))


@jax.jit
def _blend_v1(mask: Array, lq: Array, gt: Array, t: Array) -> Purified:
    x, y = lq.astype(jnp.float32), gt.astype(jnp.float32)
    lq_bar = mask * y + (1 - mask) * ((1 - t) * x + t * y)
    gt_bar = mask * x + (1 - mask) * y
    return Purified(_like(lq_bar, lq), _like(gt_bar, gt), mask)


@lru_cache(maxsize=8)
def _blended_levels(t: float) -> np.ndarray:
    """Returns IPv1's 8-bit lq_bar for CM = 0, 254, 255, each lq and each gt.

    The shape is (3, 256, 256). As in the published script, weights are float32, the
    share T is float64, and values are rounded half to even. At T = 0.1 one pair of
    levels in ten is a tie up to the last bit of float64, which float32 cannot resolve.
    """
    weight = np.array([0, 254, 255], np.float32)[:, None, None] / np.float32(255)
    level = np.arange(256, dtype=np.uint8)
    lq, gt = level[None, :, None], level[None, None, :]
    blend = weight * gt + (1 - weight) * ((1 - t) * lq + t * gt)
    return np.rint(blend).astype(np.uint8)


@jax.jit
def _look_up_v1(mask: Array, lq: Array, gt: Array, levels: Array) -> Purified:
    plane = jnp.where(mask == 1, 2, (mask > 0).astype(jnp.int32))
    lq_bar = levels[plane, lq.astype(jnp.int32), gt.astype(jnp.int32)]
    gt_bar = mask * lq.astype(jnp.float32) + (1 - mask) * gt.astype(jnp.float32)
    return Purified(lq_bar, _like(gt_bar, gt), mask)


@jax.jit
def _blend_v2(
    mask: Array, lq: Array, gt: Array, noisy_gt: Array, quiet_lq: Array
) -> Purified:
    lq_bar = mask * noisy_gt + (1 - mask) * lq
    gt_bar = mask * quiet_lq + (1 - mask) * gt
    return Purified(_like(lq_bar, lq), _like(gt_bar, gt), mask)


@partial(jax.jit, static_argnums=2)
def _reference_fill(both: Array, one: Array, height: int) -> tuple[Array, Array]:
    """Removes from both parts of the sum the area a fill reaches from corner (0, 0)."""
    corner = bit_mask.like(bit_mask.corner(height, both.shape[-1]), both)
    outside = flood_fill.flood_fill(corner, both | one)
    return both & ~outside, one & ~outside


@partial(jax.jit, static_argnums=2)
def _added_masks(lq: Array, gt: Array, params: PurifyParams) -> tuple[Array, Array]:
    """Returns D(lq) + D(gt) of uint8 as masks: both are dark (254), one is (255)."""
    height = lq.shape[-2]
    # Stacked for one pass over both breaths.
    grey = jnp.stack([_to_grey(lq, params), _to_grey(gt, params)])
    dark = dark_mask(grey, height)
    return dark[0] & dark[1], dark[0] ^ dark[1]


def _anatomies(
    lq: Array, gt: Array, params: PurifyParams, lungs: Array | None
) -> Words:
    """Returns packed masks of both breaths along a new leading axis: lq, gt."""
    images = (_to_hu(lq, params), _to_hu(gt, params))
    return segment_words(images, params.anatomy, lungs)


@partial(jax.jit, static_argnums=1)
def _weight(words: Array, height: int) -> Array:
    return bit_mask.unpack(words, height).astype(jnp.float32)


@partial(jax.jit, static_argnums=2)
def _wrapped_weight(both: Array, one: Array, height: int) -> Array:
    """Returns the sum of uint8 masks over 255; 255 + 255 wraps to 254."""
    both, one = bit_mask.unpack(both, height), bit_mask.unpack(one, height)
    return jnp.where(both, jnp.float32(254 / 255), one.astype(jnp.float32))


def _to_hu(image: Array, params: PurifyParams) -> Array:
    if params.units == "grey":
        return _grey_to_hu(image, params)
    return image.astype(jnp.float32)


def _grey_to_hu(grey: Array, params: PurifyParams) -> Array:
    centre, width = params.window
    return grey.astype(jnp.float32) * (width / 255) + (centre - width / 2)


def _to_grey(image: Array, params: PurifyParams) -> Array:
    """Returns 8-bit grey levels; HU are converted through the window."""
    level = jax.lax.stop_gradient(image).astype(jnp.float32)
    if params.units == "hu":
        centre, width = params.window
        level = (level - (centre - width / 2)) * (255 / width)
    return jnp.round(jnp.clip(level, 0, 255)).astype(jnp.uint8)


def _published_levels(image: Array, params: PurifyParams) -> Array:
    """Returns the image to blend; the published steps read and write 8-bit files."""
    if params.variant == "reference" and params.units == "grey":
        return image if image.dtype == jnp.uint8 else _to_grey(image, params)
    return image


def _in_dtype(pair: Purified, dtype: Any) -> Purified:
    if pair.lq_bar.dtype == dtype:
        return pair
    return pair._replace(
        lq_bar=pair.lq_bar.astype(dtype), gt_bar=pair.gt_bar.astype(dtype)
    )


def _from_hu(hu: Array, like: Array, params: PurifyParams) -> Array:
    if params.units == "grey":
        centre, width = params.window
        hu = (hu - (centre - width / 2)) * (255 / width)
    return _like(hu, like)


def _like(value: Array, image: Array) -> Array:
    """Returns `value` in the dtype of `image`; uint8 rounds half to even, as OpenCV."""
    if image.dtype != jnp.uint8:
        return value.astype(image.dtype)
    return jnp.clip(jnp.round(value), 0, 255).astype(jnp.uint8)


def _check_choice(name: str, value: object, accepted: tuple[object, ...]) -> None:
    if value not in accepted:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}"
        )


def _check_t(t: float | int) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"t must be from 0 to 1 (IPv1 uses 0 to 0.4), got {t}")


def _check_image(name: str, image: Array, params: PurifyParams) -> None:
    if image.ndim < 2 or 0 in image.shape:
        raise ValueError(
            f"{name} must have shape (*b, h, w) with at least one pixel, got "
            f"{image.shape}"
        )
    accepted = ("float32", "uint8") if params.units == "grey" else ("float32",)
    if image.dtype.name not in accepted:
        raise ValueError(
            f"{name} must be {' or '.join(accepted)} with units={params.units!r}, got "
            f"{image.dtype.name}; cast HU to float32, and give 8-bit images with "
            "units='grey' and their window"
        )


def _check_pair(lq: Array, gt: Array, params: PurifyParams) -> None:
    _check_image("lq", lq, params)
    _check_image("gt", gt, params)
    if lq.shape != gt.shape or lq.dtype != gt.dtype:
        raise ValueError(
            "lq and gt must have the same shape and dtype, got "
            f"{lq.shape} {lq.dtype.name} and {gt.shape} {gt.dtype.name}"
        )
    if params.anatomy.volume and params.variant == "robust" and lq.ndim < 3:
        raise ValueError(
            "anatomy.volume needs the slices of a volume, (*b, slices, h, w), got "
            f"{lq.shape}"
        )

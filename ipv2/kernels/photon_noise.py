"""Low-dose CT from normal-dose CT: photon statistics along the rays.

`simulate_low_dose` is the physical model. With HU x, pixel size in mm and N0 photons a
ray at normal dose, for an input of dose d0 and a target of dose d = a d0:

    mu      = mu_water (1 + x / 1000), not below 0                  [1/mm]
    p       = radon(mu) * spacing_mm
    N       = d0 N0 exp(-p)                       the input's own counts
    n       ~ Binomial(N, a) + Normal(0, (1 - a^2) sigma_e^2), floored at 1
    noise   = FBP(-ln(n / (a N))) * 1000 / mu_water                 [HU]
    result  = x + noise

Only what is missing is injected. Thinning Poisson(N) by a gives Poisson(a N) exactly,
so the input's own noise is counted once; an input without noise (d0 = inf, a = 0) gets
Poisson(d N0 exp(-p)) and all of sigma_e^2. The added variance in p is (1 - a) / (a N)
for the photons, and sigma_e^2 / (a N)^2 - sigma_e^2 / N^2 for the electronics: target
minus input, as in Zeng et al., IEEE TNS 62(5), 2015. Dose ratio 1 adds nothing. The
logarithm of few counts is biased by about (1 - a) / (2 a N): real scanners share it.
Only noise is reconstructed: the image keeps its sharpness, its HU and its artefacts.

`simulate_reference_noise` is the recipe that the IPv2 authors published, for parity.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Real, UInt8

from ipv2.kernels import projection

# Below this variance of a count the quantile is found by summing probabilities.
_EXACT_BELOW = 10.0
# P(Poisson(10 / (1 - 1/2)) > 56) = 4e-11.
_EXACT_STEPS = 56

# Expected photons behind metal, where exp(-p) would underflow.
_FEWEST = 1e-6

_SMALLEST = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoseParams:
    """A scan at a fraction of normal dose.

    Attributes:
      dose: target dose as a fraction of normal dose, in (0, input_dose].
      input_dose: the input's own dose, as a fraction of normal dose, in (0, 1]; or
        `math.inf` for an input without noise, a phantom's.
      photons: photons that reach one detector bin in one view through air, at normal
        dose. 1.5e5 is a thin-slice clinical scan; calibrate it to a scanner.
      electronic_variance: of the detector's electronics, photons^2.
      mu_water_per_mm: attenuation of water; 0.0192 /mm at 70 keV.
      views: angles over half a turn; None for as many as the image's longer side.
      filter_name: reconstruction filter, one of `projection.FILTERS`.
      cutoff: of that filter, see `projection.filter_response`.

    Raises:
      ValueError: a value outside its range.
    """

    dose: float | int
    input_dose: float | int = 1.0
    photons: float | int = 1.5e5
    electronic_variance: float | int = 10.0
    mu_water_per_mm: float | int = 0.0192
    views: int | None = None
    filter_name: str = "hann"
    cutoff: float | int = 1.0

    def __post_init__(self) -> None:
        """Checks every range."""
        if not (0 < self.input_dose <= 1 or self.input_dose == math.inf):
            raise ValueError(
                f"input_dose = {self.input_dose}; a fraction of normal dose in (0, 1], "
                "or math.inf for an image without noise."
            )
        if not 0 < self.dose <= min(self.input_dose, 1):
            raise ValueError(
                f"dose = {self.dose}; a fraction of normal dose in (0, 1], 0.02 for "
                f"2 %, not above the input's own, {self.input_dose}: noise can only be "
                "added."
            )
        if not (math.isfinite(self.photons) and self.photons >= 1):
            raise ValueError(f"photons = {self.photons}; a finite count, at least 1.")
        if not (
            math.isfinite(self.electronic_variance) and self.electronic_variance >= 0
        ):
            raise ValueError(
                f"electronic_variance = {self.electronic_variance}; photons^2, finite, "
                "at least 0."
            )
        if not 0 < self.mu_water_per_mm < 1:
            raise ValueError(
                f"mu_water_per_mm = {self.mu_water_per_mm}; between 0 and 1 per mm, "
                "about 0.0192 at 70 keV."
            )
        if self.views is not None and self.views < 1:
            raise ValueError(f"views = {self.views}; at least 1, or None.")
        projection.filter_response(self.filter_name, 16, cutoff=self.cutoff)


def hu_to_attenuation(
    image_hu: Real[Array, "..."], mu_water_per_mm: Any = 0.0192
) -> Float32[Array, "..."]:
    """mu_water (1 + HU / 1000) per mm; 0 from -1000 HU down (air and padding)."""
    hu = jnp.asarray(image_hu, jnp.float32)
    return mu_water_per_mm * jnp.maximum(1 + hu / 1000, 0.0)


def sample_counts(
    normal: Float32[Array, "*s"],
    mean: Float32[Array, "*s"],
    fraction: Any = 0.0,
) -> Float32[Array, "*s"]:
    """Counts of a binomial distribution, by inverting its distribution function.

    Binomial(mean / fraction, fraction), variance mean (1 - fraction); fraction 0 is
    Poisson(mean). The uniform number that is inverted is Phi(normal). At a variance of
    10 and more the inverse is the Cornish-Fisher expansion to the order of 1 / sd with
    Sheppard's correction, rounded to an integer (for Poisson: Giles, ACM TOMS 42(1),
    2016, equation 9, less its last term); below, probabilities are summed.

    Args:
      normal: standard normal numbers, one a count.
      mean: expected counts, at least 0.
      fraction: a number in [0, 1/2].

    Returns:
      Integers, at least 0, as float32.
    """
    variance = mean * (1 - fraction)
    sd = jnp.sqrt(jnp.maximum(variance, _EXACT_BELOW))
    square = normal * normal
    skew = (1 - 2 * fraction) / 6
    kurtosis = (1 - 6 * fraction * (1 - fraction)) / 24
    first = skew * (square - 1)
    second = (
        kurtosis * (square - 3) - skew * skew * (2 * square - 5) - 1 / 24
    ) * normal
    many = jnp.floor(mean + sd * normal + first + second / sd + 0.5)

    # P(k + 1) = P(k) (M - k) / (k + 1) f / (1 - f), M f = mean: finite at f = 0 too.
    safe = jnp.where(fraction > 0, fraction, 1.0)
    rate = jnp.where(fraction > 0, jnp.log1p(-fraction) / safe, -1.0)
    few_mean = jnp.where(variance < _EXACT_BELOW, mean, 0.0)
    uniform = jax.scipy.stats.norm.cdf(normal)
    probability = jnp.exp(few_mean * rate)
    cumulative = probability
    few = jnp.zeros_like(mean)
    for k in range(_EXACT_STEPS):
        few = few + (uniform > cumulative)
        left = jnp.maximum(few_mean - k * fraction, 0.0)
        probability = probability * left / ((k + 1) * (1 - fraction))
        cumulative = cumulative + probability
    return jnp.where(variance < _EXACT_BELOW, few, jnp.maximum(many, 0.0))


def _thinned(
    normal: Float32[Array, "*s"], mean: Float32[Array, "*s"], fraction: Any
) -> Float32[Array, "*s"]:
    """Binomial(mean / fraction, fraction): those that stay, or all but those that go.

    Poisson(mean) for fraction 0.
    """
    total = mean / jnp.where(fraction > 0, fraction, 1.0)
    common = fraction > 0.5
    rare = jnp.where(common, 1 - fraction, fraction)
    drawn = sample_counts(normal, jnp.where(common, total * rare, mean), rare)
    drawn = jnp.where(fraction > 0, jnp.minimum(drawn, total), drawn)
    return jnp.where(common, total - drawn, drawn)


def _slice_keys(rng: Array, batch: tuple[int, ...]) -> Array:
    """One key a slice, flat: those given, or the one given folded with the index."""
    if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        rng = jax.random.wrap_key_data(rng)
    if rng.shape == batch and batch:
        return rng.reshape(-1)
    if rng.shape != ():
        raise ValueError(
            f"rng holds keys of shape {rng.shape}; one key, or one for each image of "
            f"the batch {batch}."
        )
    index = jnp.arange(math.prod(batch))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, index)


def _standard_normals(keys: Array, shape: tuple[int, ...]) -> Array:
    """Two arrays of normal numbers for each key."""
    # A loop over slices: on CPU half the time of vmap, and a third to compile.
    return jax.lax.map(lambda key: jax.random.normal(key, (2, *shape)), keys)


def _noise_hu(
    geometry: projection.Geometry,
    response: Array,
    keys: Array,
    image_hu: Float32[Array, "b h w"],
    spacing_mm: Float32[Array, " b"],
    scan: dict[str, Array],
) -> Float32[Array, "b h w"]:
    """Noise that takes the images from their dose to the target, HU."""
    spacing = spacing_mm[:, None, None]
    mu = hu_to_attenuation(image_hu, scan["mu_water"])
    line = projection.project(geometry, mu) * spacing
    # Gibbs' ringing of a sharp edge against air would otherwise add photons to air.
    line = jnp.maximum(line, 0.0)
    # a and a N; whole photons in N, so that what goes and what stays are whole too.
    ratio = scan["ratio"]
    mean = scan["photons"] * jnp.exp(-line)
    known = jnp.where(ratio > 0, ratio, 1.0)
    whole = known * jnp.maximum(jnp.round(mean / known), 1.0)
    mean = jnp.where(ratio > 0, whole, jnp.maximum(mean, _FEWEST))
    normal = _standard_normals(keys, line.shape[1:])
    electronic_sd = jnp.sqrt((1 - ratio**2) * scan["electronic_variance"])
    seen = _thinned(normal[:, 0], mean, ratio) + electronic_sd * normal[:, 1]
    error = -jnp.log(jnp.maximum(seen, 1.0) / mean)
    noise = projection.backproject(geometry, error, response) / spacing
    return noise * (math.pi / geometry.views * 1000 / scan["mu_water"])


_jit_noise_hu = jax.jit(_noise_hu)


def _check_image(image_hu: Any) -> None:
    if np.ndim(image_hu) < 2 or min(np.shape(image_hu)[-2:]) < _SMALLEST:
        raise ValueError(
            f"image_hu has shape {np.shape(image_hu)}; (*b, h, w) with h and w at "
            f"least {_SMALLEST} pixels."
        )
    if isinstance(image_hu, jax.core.Tracer):
        return
    low, high = float(jnp.min(image_hu)), float(jnp.max(image_hu))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("image_hu holds values that are not finite; HU are finite.")
    if 0 <= low < high <= 255:
        raise ValueError(
            f"image_hu ranges from {low:g} to {high:g}: grey levels, not HU (air is "
            "-1000, water 0). Convert with the window the image was made with."
        )


def _slice_spacing(spacing_mm: Any, batch: tuple[int, ...]) -> Array:
    """(prod(batch),) mm, from one number, one a slice, or (row, column) of each."""
    spacing = jnp.asarray(spacing_mm, jnp.float32)
    if not isinstance(spacing, jax.core.Tracer):
        known = np.asarray(spacing)
        if not (np.all(np.isfinite(known)) and np.all(known > 0)):
            raise ValueError(f"spacing_mm = {spacing_mm}; finite sizes above 0 mm.")
        # 1e-3: DICOM headers round; a tenth of a percent moves no HU.
        if known.shape in {(2,), (*batch, 2)} and known.shape != batch:
            if not np.allclose(known[..., 0], known[..., 1], rtol=1e-3):
                raise ValueError(
                    f"spacing_mm = {spacing_mm}: rows and columns differ. Rays are "
                    "traced through square pixels; resample the image to square ones."
                )
    if spacing.shape != batch and spacing.shape in {(2,), (*batch, 2)}:
        spacing = spacing[..., 1]
    if spacing.shape not in {(), batch}:
        raise ValueError(
            f"spacing_mm has shape {spacing.shape}; (), {batch} or {(*batch, 2)} for "
            f"images of batch {batch}."
        )
    return jnp.broadcast_to(spacing, batch).reshape(-1)


def scan_geometry(shape: tuple[int, int], views: int | None) -> projection.Geometry:
    """Geometry of the simulated scan: `views` angles, or as many as the longer side.

    The detector sees the inscribed circle of a square image (a scanner's field of
    view), and all of a rectangle.
    """
    h, w = shape
    detectors = h if h == w else math.ceil(math.hypot(h, w))
    angle = projection.uniform_angles(views or max(h, w))
    return projection.create_geometry(shape, angle, detectors=detectors)


def simulate_low_dose(
    rng: Array,
    image_hu: Real[Array | np.ndarray, "..."],
    spacing_mm: Any,
    dose_params: DoseParams,
    *,
    geometry: projection.Geometry | None = None,
) -> Float32[Array, "..."]:
    """The images as scanned at a lower dose, HU; the model is in the module docstring.

    The noise of a slice depends on its key, image and spacing alone, not on the batch
    it is in. Compiled once per shape: keys, spacing, doses, photons and filters may
    change. The gradient for the image is the identity: the noise counts as a constant.
    Works inside jit, where values cannot be checked: there, check them beforehand.

    Args:
      rng: one key, folded with each slice's position in the batch; or keys of shape *b.
      image_hu: `*b h w` normal-dose images, at least 16 pixels each way. From -1000 HU
        down they are air.
      spacing_mm: size of the square pixels: one number, one for each slice (`*b`), or
        (row, column), (2,) or `*b 2`. Two slices: (2,) is one number for each.
      dose_params: the scan.
      geometry: from `scan_geometry`; pass it as an argument into functions that you jit
        yourself. None looks it up.

    Returns:
      `*b h w` low-dose images, HU, not clipped.

    Raises:
      ValueError: an image that is not HU, not finite or too small, a spacing that is
        not above 0 or not square, keys that do not fit the batch.
    """
    _check_image(image_hu)
    h, w = image_hu.shape[-2:]
    batch = image_hu.shape[:-2]
    spacing = _slice_spacing(spacing_mm, batch)
    keys = _slice_keys(rng, batch)
    if geometry is None:
        geometry = scan_geometry((h, w), dose_params.views)
    response = projection.filter_response(
        dose_params.filter_name, geometry.padded, cutoff=dose_params.cutoff
    )
    image = jnp.asarray(image_hu, jnp.float32)
    scan = {
        "mu_water": dose_params.mu_water_per_mm,
        "photons": dose_params.photons * dose_params.dose,
        "ratio": dose_params.dose / dose_params.input_dose,
        "electronic_variance": dose_params.electronic_variance,
    }
    noise = _jit_noise_hu(
        geometry,
        jnp.asarray(response),
        keys,
        jax.lax.stop_gradient(image).reshape(-1, h, w),
        spacing,
        {key: jnp.asarray(value, jnp.float32) for key, value in scan.items()},
    )
    return image + jax.lax.stop_gradient(noise).reshape(image.shape)


def _min_max(image: Float32[Array, "b h w"]) -> Float32[Array, "b h w"]:
    """Each image stretched to [0, 1]; a constant one becomes 0."""
    low = jnp.min(image, axis=(1, 2), keepdims=True)
    span = jnp.max(image, axis=(1, 2), keepdims=True) - low
    return (image - low) / jnp.where(span > 0, span, 1.0)


def _reference(
    geometry: projection.Geometry,
    response: Array,
    keys: Array,
    image: Float32[Array, "b h w"],
    photons: Array,
) -> UInt8[Array, "b h w"]:
    circle = jnp.asarray(projection.inscribed_circle(geometry.shape))[None]
    line = projection.project(geometry, jnp.where(circle, _min_max(image), 0.0)) / 500
    mean = photons * jnp.exp(-line)

    normal = _standard_normals(keys, line.shape[1:])
    seen = sample_counts(normal[:, 0], mean) + 0.05 * jnp.sqrt(mean) * normal[:, 1]
    positive = seen > 0
    line = jnp.where(positive, -jnp.log(jnp.where(positive, seen, 1.0) / photons), 0.0)
    result = projection.backproject(geometry, 500 * line, response)
    result = jnp.where(circle, result * (math.pi / geometry.views), 0.0)
    return jnp.round(255 * _min_max(result)).astype(jnp.uint8)


_jit_reference = jax.jit(_reference)


def simulate_reference_noise(
    rng: Array,
    image: Real[Array | np.ndarray, "..."],
    *,
    mas: float | int = 2.5,
    geometry: projection.Geometry | None = None,
) -> UInt8[Array, "..."]:
    """The low-dose recipe published with IPv2, its faults included, for parity.

    x = min-max of each image; p = radon(x) / 500 at as many views as the image has
    rows; I = (0.015 mAs + 0.1002) 200,000; lam = I exp(-p); n ~ Poisson(lam) +
    Normal(0, 0.05 sqrt(lam)); p' = -ln(n / I), 0 where n <= 0; FBP (Hann, linear
    interpolation) of 500 p', zero outside the inscribed circle, min-max, 8 bit.
    # Departs from IPv2: the noise is seeded, the logarithm is not taken of n <= 0, and
    # what lies outside the inscribed circle is not projected.

    Args:
      rng: one key, folded with each slice's position in the batch; or keys of shape *b.
      image: `*b n n` square grey images in any unit, at least 16 pixels.
      mas: the recipe's exposure; 2.5 is called 2 % there and is 13.8 % of the flux.
      geometry: from `scan_geometry`; None looks it up.

    Returns:
      `*b n n` images of 8 bits.

    Raises:
      ValueError: images that are not square or too small, keys that do not fit.
    """
    shape = np.shape(image)
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < _SMALLEST:
        raise ValueError(
            f"image has shape {shape}; the published recipe takes square images "
            f"(*b, n, n) of at least {_SMALLEST} pixels."
        )
    size = shape[-1]
    if geometry is None:
        geometry = scan_geometry((size, size), None)
    response = projection.filter_response(
        "hann", geometry.padded, linear_interpolation=True
    )
    flat = jnp.asarray(image, jnp.float32).reshape(-1, size, size)
    photons = jnp.asarray((0.015 * mas + 0.1002) * 200 * 1000, jnp.float32)
    keys = _slice_keys(rng, shape[:-2])
    return _jit_reference(geometry, jnp.asarray(response), keys, flat, photons).reshape(
        shape
    )

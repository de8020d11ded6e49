"""Low-dose CT from normal-dose CT: photon statistics along the rays.

`simulate_low_dose` is the physical model. With HU x, pixel size in mm and N0 photons
per ray at normal dose, for an input of dose d0 and a target of dose d = a d0:

    mu      = mu_water (1 + x / 1000), not below 0                  [1/mm]
    p       = radon(mu) * spacing_mm
    N       = d0 N0 c T(r) exp(-p)                counts of the input
    n       ~ Binomial(N, a) + Normal(0, (1 - a^2) sigma_e^2), floored at 1
    noise   = FBP(-ln(n / (a N))) * 1000 / mu_water                 [HU]
    result  = x + noise

Only the missing noise is added. Thinning Poisson(N) by a gives exactly Poisson(a N), so
the input's noise is counted once. An input without noise (d0 = inf, a = 0) gets
Poisson(d N0 exp(-p)) and all of sigma_e^2. The added variance in p is (1 - a) / (a N)
for the photons, and sigma_e^2 / (a N)^2 - sigma_e^2 / N^2 for the electronics: target
minus input, as in Zeng et al., IEEE TNS 62(5), 2015. Dose ratio 1 adds nothing. The
logarithm of few counts has a bias of about (1 - a) / (2 a N), as in real scanners. Only
noise is reconstructed: the image keeps its sharpness, its HU and its artefacts. Beams
are parallel, or a fan from a source (`DoseParams.source_distance_mm`).

c is the slice's tube current over the series' mean: photons are proportional to it. T
is the transmission of a bowtie filter at the ray's distance r from the isocentre
(`bowtie`). Both are 1 by default.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Real

from ipv2.kernels import fan_beam, projection
from ipv2.kernels.bowtie import bowtie_transmission
from ipv2.kernels.fan_beam import FanGeometry
from ipv2.kernels.photon_counts import slice_keys, thinned_counts
from ipv2.kernels.reconstruction_filter import filter_response
from ipv2.kernels.slice_loop import slice_by_slice

# Expected photons behind metal, where exp(-p) would underflow.
_FEWEST = 1e-6

SMALLEST = 16

# In radii of the image's circle: a fan of 90 degrees. Scanners have less than 60.
_NEAREST_SOURCE = math.sqrt(2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoseParams:
    """A scan at a fraction of normal dose.

    Attributes:
      dose: target dose as a fraction of normal dose, in (0, input_dose].
      input_dose: dose of the input as a fraction of normal dose, in (0, 1]; or
        `math.inf` for an input without noise, such as a phantom.
      photons: photons that reach one detector bin in one view through air, at normal
        dose. 1.5e5 is a thin-slice clinical scan; calibrate it to a scanner.
      electronic_variance: variance of the detector's electronics, photons^2.
      mu_water_per_mm: attenuation of water; 0.0192 /mm at 70 keV.
      views: views of the scan, over half a turn of a parallel beam or a whole turn of a
        fan; None for the pixels of the image's longer side, plus one for a fan if that
        is even.
      filter_name: reconstruction filter, a name of `projection.FILTERS`.
      cutoff: cutoff of that filter, see `filter_response`.
      window: factors on that filter, see `filter_response`; `ipv2.calibration` measures
        them.
      source_distance_mm: None for a parallel beam; source to rotation centre for an
        equiangular fan beam, about 600 mm. Its rays are one pixel apart at the centre,
        and each carries `photons`. A turn of n views sends n rays through a point, like
        n parallel views: the same total of photons and the same noise at the centre.
        Towards the edge rays are closer, and noise falls by sqrt(cos(gamma)). Each line
        is measured twice, from both ends; with an odd number of views opposite ones
        interleave.
      bowtie_mm: radius of the water cylinder for which the scanner's bowtie filter is
        made, see `bowtie_transmission`; 0 for no filter. `photons` are then those of
        the central ray.

    Raises:
      ValueError: A value is outside its range.
    """

    dose: float | int
    input_dose: float | int = 1.0
    photons: float | int = 1.5e5
    electronic_variance: float | int = 10.0
    mu_water_per_mm: float | int = 0.0192
    views: int | None = None
    filter_name: str = "hann"
    cutoff: float | int = 1.0
    window: tuple[float, ...] = ()
    source_distance_mm: float | int | None = None
    bowtie_mm: float | int = 0.0

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
        distance = self.source_distance_mm
        if distance is not None and not (math.isfinite(distance) and distance > 0):
            raise ValueError(
                f"source_distance_mm = {distance}; above 0 mm, about 600 for a "
                "scanner, or None for a parallel beam."
            )
        if distance is not None and self.views is not None and self.views < 3:
            raise ValueError(f"views = {self.views}; a fan beam needs at least 3.")
        if not (math.isfinite(self.bowtie_mm) and self.bowtie_mm >= 0):
            raise ValueError(
                f"bowtie_mm = {self.bowtie_mm}; the radius of a water cylinder in mm, "
                "finite, or 0 for no bowtie filter."
            )
        filter_response(self.filter_name, 16, cutoff=self.cutoff, window=self.window)


def hu_to_attenuation(
    image_hu: Real[Array, "..."], mu_water_per_mm: Any = 0.0192
) -> Float32[Array, "..."]:
    """Returns mu_water (1 + HU / 1000) per mm; 0 at -1000 HU and below."""
    hu = jnp.asarray(image_hu, jnp.float32)
    return mu_water_per_mm * jnp.maximum(1 + hu / 1000, 0.0)


def _fan_angles(geometry: FanGeometry, distance: Array) -> Array:
    """Returns angles of rays one pixel apart at the centre, beyond the circle's edge.

    Half the arc, asin(r / R) R, is largest for the nearest source.
    """
    longest = math.asin(1 / _NEAREST_SOURCE) * _NEAREST_SOURCE * geometry.radius
    half = math.ceil(longest)
    return jnp.arange(-half, half + 1, dtype=jnp.float32) / distance


def _line_integrals(
    geometry: projection.Geometry | FanGeometry, mu: Array, distance: Array
) -> Array:
    """Returns (n, rays) line integrals in pixels times the unit of mu."""
    if isinstance(geometry, FanGeometry):
        fan_angle = _fan_angles(geometry, distance)
        return fan_beam.project_fan(geometry, mu, fan_angle, distance)
    return projection.project(geometry, mu)


def _ray_distances(
    geometry: projection.Geometry | FanGeometry, distance: Array
) -> Array:
    """Returns (rays,) distances of a view's rays from the isocentre, pixels."""
    if isinstance(geometry, FanGeometry):
        return distance * jnp.sin(_fan_angles(geometry, distance))
    return jnp.arange(geometry.detectors, dtype=jnp.float32) - geometry.detectors // 2


def _reconstruct(
    geometry: projection.Geometry | FanGeometry,
    error: Array,
    distance: Array,
    response: Array,
) -> Array:
    """Reconstructs (h, w) from (n, rays), in pixels."""
    if isinstance(geometry, FanGeometry):
        fan_angle = _fan_angles(geometry, distance)
        image = fan_beam.backproject_fan(geometry, error, fan_angle, distance, response)
    else:
        image = projection.backproject(geometry, error, response)
    return image * (math.pi / geometry.views)


def _noise_hu(
    geometry: projection.Geometry | FanGeometry,
    response: Array,
    scan: dict[str, Array],
    key: Array,
    image_hu: Float32[Array, "h w"],
    spacing_mm: Float32[Array, ""],
    relative_current: Float32[Array, ""],
) -> Float32[Array, "h w"]:
    """Returns the noise between one image's dose and the target dose, HU."""
    mu = hu_to_attenuation(image_hu, scan["mu_water"])
    distance = scan["source_distance_mm"] / spacing_mm
    line = _line_integrals(geometry, mu, distance) * spacing_mm
    # Gibbs' ringing of a sharp edge to air would otherwise add photons to air.
    line = jnp.maximum(line, 0.0)
    # a and a N, with a whole number N, so that lost and remaining photons are whole.
    ratio = scan["ratio"]
    passed = bowtie_transmission(
        _ray_distances(geometry, distance) * spacing_mm,
        scan["bowtie_mm"],
        scan["mu_water"],
    )
    mean = scan["photons"] * relative_current * passed[None] * jnp.exp(-line)
    known = jnp.where(ratio > 0, ratio, 1.0)
    whole = known * jnp.maximum(jnp.round(mean / known), 1.0)
    mean = jnp.where(ratio > 0, whole, jnp.maximum(mean, _FEWEST))
    normal = jax.random.normal(key, (2, *line.shape))
    electronic_sd = jnp.sqrt((1 - ratio**2) * scan["electronic_variance"])
    seen = thinned_counts(normal[0], mean, ratio) + electronic_sd * normal[1]
    error = -jnp.log(jnp.maximum(seen, 1.0) / mean)
    noise = _reconstruct(geometry, error, distance, response) / spacing_mm
    return noise * (1000 / scan["mu_water"])


@jax.jit
def _jit_noise_hu(
    geometry: projection.Geometry | FanGeometry,
    response: Array,
    scan: dict[str, Array],
    keys: Array,
    images_hu: Float32[Array, "b h w"],
    spacing_mm: Float32[Array, " b"],
    relative_current: Float32[Array, " b"],
) -> Float32[Array, "b h w"]:
    return slice_by_slice(
        lambda constants, *one: _noise_hu(*constants, *one),
        (keys, images_hu, spacing_mm, relative_current),
        (geometry, response, scan),
    )


@jax.jit
def noise_of_scans_hu(
    geometry: projection.Geometry,
    responses: Float32[Array, "n f"],
    scans: dict[str, Float32[Array, " b"]],
    chosen: Int[Array, " b"],
    keys: Array,
    images_hu: Float32[Array, "b h w"],
    spacing_mm: Float32[Array, " b"],
) -> Float32[Array, "b h w"]:
    """Noise of another scan for each slice, HU; `chosen` is each one's filter."""
    names = sorted(scans)

    def one(constants: Any, key: Array, image: Array, spacing: Array, *own: Array):
        geometry, responses = constants
        *values, place = own
        scan = dict(zip(names, values, strict=True))
        # A drawn scan's photons hold its tube current.
        current = jnp.float32(1.0)
        response = responses[place]
        return _noise_hu(geometry, response, scan, key, image, spacing, current)

    return slice_by_slice(
        one,
        (keys, images_hu, spacing_mm, *(scans[name] for name in names), chosen),
        (geometry, responses),
    )


def scan_values(params: DoseParams) -> dict[str, float]:
    """The numbers of a scan that the noise model reads."""
    return {
        "mu_water": params.mu_water_per_mm,
        "photons": params.photons * params.dose,
        "ratio": params.dose / params.input_dose,
        "electronic_variance": params.electronic_variance,
        "source_distance_mm": params.source_distance_mm or 0.0,  # 0: unused
        "bowtie_mm": params.bowtie_mm,
    }


def check_image(image_hu: Any) -> None:
    """Raises ValueError with the reason unless this is an image in HU."""
    if np.ndim(image_hu) < 2 or min(np.shape(image_hu)[-2:]) < SMALLEST:
        raise ValueError(
            f"image_hu has shape {np.shape(image_hu)}; (*b, h, w) with h and w at "
            f"least {SMALLEST} pixels."
        )
    if image_hu.dtype in (np.uint8, np.bool_):
        raise ValueError(
            f"image_hu holds {image_hu.dtype}: grey levels, not HU (air is -1000, "
            "water 0). Convert with the window the image was made with."
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


def slice_spacing(spacing_mm: Any, batch: tuple[int, ...]) -> Array:
    """Returns (prod(batch),) mm from one number, one per slice, or (row, column)s."""
    if spacing_mm is None:
        raise ValueError(
            "spacing_mm is missing (None); the attenuation depends on the size of a "
            "pixel in mm. In DICOM it is PixelSpacing."
        )
    spacing = jnp.asarray(spacing_mm, jnp.float32)
    if not isinstance(spacing, jax.core.Tracer):
        known = np.asarray(spacing)
        if not (np.all(np.isfinite(known)) and np.all(known > 0)):
            raise ValueError(f"spacing_mm = {spacing_mm}; finite sizes above 0 mm.")
        # 1e-3: DICOM headers are rounded, and a tenth of a percent changes no HU.
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


def slice_current(relative_current: Any, batch: tuple[int, ...]) -> Array:
    """Returns (prod(batch),) tube currents from one number, or one per slice."""
    current = jnp.asarray(relative_current, jnp.float32)
    if not isinstance(current, jax.core.Tracer):
        known = np.asarray(current)
        if not (np.all(np.isfinite(known)) and np.all(known > 0)):
            raise ValueError(
                f"relative_current = {relative_current}; finite factors above 0, the "
                "tube current of each slice over the series' mean."
            )
    if current.shape not in {(), batch}:
        raise ValueError(
            f"relative_current has shape {current.shape}; () or {batch} for images of "
            f"batch {batch}."
        )
    return jnp.broadcast_to(current, batch).reshape(-1)


def _detectors(shape: tuple[int, int]) -> int:
    h, w = shape
    return h if h == w else math.ceil(math.hypot(h, w))


def scan_geometry(shape: tuple[int, int], views: int | None) -> projection.Geometry:
    """Returns the simulated parallel-beam scan's geometry; for views see `DoseParams`.

    The detector sees the inscribed circle of a square image (a scanner's field of
    view), and all of a rectangle.
    """
    angle = projection.uniform_angles(views or max(shape))
    return projection.create_geometry(shape, angle, detectors=_detectors(shape))


def fan_scan_geometry(shape: tuple[int, int], views: int | None) -> FanGeometry:
    """Returns the geometry of a simulated fan-beam scan (with `source_distance_mm`)."""
    turn = 2 * projection.uniform_angles(views or max(shape) | 1)
    return fan_beam.create_fan_geometry(shape, turn, detectors=_detectors(shape))


def _check_geometry(
    geometry: projection.Geometry | FanGeometry,
    source_distance_mm: float | int | None,
    spacing_mm: Array,
) -> None:
    if isinstance(geometry, FanGeometry) != (source_distance_mm is not None):
        raise ValueError(
            f"source_distance_mm = {source_distance_mm}, {type(geometry).__name__}"
            ": `fan_scan_geometry` belongs to a distance, `scan_geometry` to None."
        )
    if isinstance(geometry, FanGeometry) and not isinstance(
        spacing_mm, jax.core.Tracer
    ):
        fan_beam.check_source_distance(
            source_distance_mm, geometry.radius, spacing_mm, nearest=_NEAREST_SOURCE
        )


def simulate_low_dose(
    rng: Array,
    image_hu: Real[Array | np.ndarray, "..."],
    spacing_mm: Any,
    dose_params: DoseParams,
    *,
    relative_current: Any = 1.0,
    geometry: projection.Geometry | FanGeometry | None = None,
) -> Float32[Array, "..."]:
    """Simulates images at a lower dose, HU; the module docstring states the model.

    The noise of a slice depends on its key, image and spacing alone, not on its batch:
    to the bit, or up to rounding inside your own jitted function. The code is compiled
    once per shape: keys, spacing, doses, photons and filters may change. The gradient
    for the image is the identity: the noise counts as a constant. Inside jit values
    cannot be checked: check them beforehand.

    Args:
      rng: one key, folded with each slice's position in the batch; or keys of shape *b.
      image_hu: `*b h w` normal-dose images, at least 16 pixels along each axis. Values
        of -1000 HU and less are air.
      spacing_mm: size of the square pixels: one number, one for each slice (`*b`), or
        (row, column), (2,) or `*b 2`. Two slices: (2,) is one number for each.
      dose_params: the scan.
      relative_current: tube current over that of the scan, which scales `photons`: one
        number, or one for each slice (`*b`), above 0. In DICOM: `Grid.relative_current`
        of `ipv2.ct_io`.
      geometry: geometry of `scan_geometry` or `fan_scan_geometry`; pass it as an
        argument to your own jitted functions. None looks it up.

    Returns:
      `*b h w` low-dose images, HU, not clipped.

    Raises:
      ValueError: The image is not in HU, not finite or too small, the spacing is not
        above 0 or not square, or keys, current, geometry or source distance do not
        fit.
    """
    check_image(image_hu)
    h, w = image_hu.shape[-2:]
    batch = image_hu.shape[:-2]
    spacing = slice_spacing(spacing_mm, batch)
    current = slice_current(relative_current, batch)
    keys = slice_keys(rng, batch)
    if geometry is None:
        parallel = dose_params.source_distance_mm is None
        create = scan_geometry if parallel else fan_scan_geometry
        geometry = create((h, w), dose_params.views)
    _check_geometry(geometry, dose_params.source_distance_mm, spacing)
    response = filter_response(
        dose_params.filter_name,
        geometry.padded,
        cutoff=dose_params.cutoff,
        window=dose_params.window,
    )
    image = jnp.asarray(image_hu, jnp.float32)
    scan = scan_values(dose_params)
    noise = _jit_noise_hu(
        geometry,
        jnp.asarray(response),
        {key: jnp.asarray(value, jnp.float32) for key, value in scan.items()},
        keys,
        jax.lax.stop_gradient(image).reshape(-1, h, w),
        spacing,
        current,
    )
    return image + jax.lax.stop_gradient(noise).reshape(image.shape)

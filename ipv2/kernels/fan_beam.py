"""Equiangular fan-beam projection and reconstruction, by rebinning.

The ray at source angle beta and fan angle gamma is the ray

    theta = beta + gamma,    s = R sin(gamma)

of `projection`'s parallel geometry: q(beta, gamma) = p(beta + gamma, R sin(gamma)). The
source is at x = -R sin(beta), y = -R cos(beta), with x along columns and y along rows
(down) from the rotation centre: at angle 0 it is above the image. Both substitutions
are linear and one-dimensional, and they do not blur:

- along beta, over a whole turn, each fan angle is shifted by gamma: the k-th Fourier
  coefficient of the turn is multiplied by exp(i k gamma);
- along the detector, p is band-limited: p(s) = sum_j p_j sinc(s - j), s in bins; the
  inverse is p_j = sum_m R cos(gamma_m) dgamma q_m sinc(s_m - j), an integral over the
  rays, which averages rays that are closer than a bin.

The projection takes parallel views at as many angles as the image's Fourier series of
the turn has terms (about pi d, with d detector bins), so fan sinograms are exact for
any number of views. Reconstruction rebins at the fan's views: below about pi d views it
shows streaks, as a scan does. An odd number of views n sees n directions, because
opposite views interleave; an even number sees n / 2.

`fan_beam_radon` and `fan_beam_backprojection` are public: whole operators on batches,
for users and benchmarks. The low-dose simulation uses `project_fan` and
`backproject_fan`.

Reference: Kak and Slaney 1988, section 3.4.3.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Real

from ipv2.kernels.projection import (
    Geometry,
    backproject,
    check_rank,
    create_geometry,
    inscribed_circle,
    project,
    spacing_factor,
)
from ipv2.kernels.reconstruction_filter import filter_response


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["forward", "backward"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class FanGeometry:
    """The parallel-beam tables behind a fan beam; a pytree.

    Attributes:
      forward: tables for angles over half a turn, a multiple of half the fan's views.
      backward: tables for the angles of the fan's views, over a whole turn.
    """

    forward: Geometry
    backward: Geometry

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the image."""
        return self.backward.shape

    @property
    def views(self) -> int:
        """Views in the turn, n."""
        return self.backward.views

    @property
    def padded(self) -> int:
        """Length of a parallel view's FFT, for `filter_response`."""
        return self.backward.padded

    @property
    def radius(self) -> int:
        """Radius in pixels of the circle that every view sees."""
        return self.backward.detectors // 2


def create_fan_geometry(
    shape: tuple[int, int], source_angle_rad: Any, *, detectors: int | None = None
) -> FanGeometry:
    """Returns tables for images of one size and a turn of the source; cached.

    Args:
      shape: (h, w) of the image.
      source_angle_rad: (n,) angles of the source, radians, n >= 3, evenly over a whole
        turn from any start; concrete.
      detectors: diameter in pixels of the circle that is seen, rounded up to an odd
        number; max(h, w) if None.

    Returns:
      The geometry.

    Raises:
      ValueError: The angles are not an even turn, or the sizes make no geometry.
      TypeError: The angles are traced.
    """
    if isinstance(source_angle_rad, jax.core.Tracer):
        raise TypeError("source_angle_rad is traced; pass a concrete NumPy array.")
    angle = np.asarray(source_angle_rad, np.float64)
    n = angle.size
    turn = 2 * math.pi * np.arange(n) / max(n, 1)
    # 1e-6 of a turn moves a ray by less than a thousandth of a pixel.
    if (
        angle.ndim != 1
        or n < 3
        or not np.allclose(angle - angle[0], turn, rtol=0, atol=1e-6)
    ):
        raise ValueError(
            f"source_angle_rad: got shape {angle.shape}, accepted: (n,) angles, n >= "
            "3, evenly over a whole turn: start + 2 pi i / n."
        )
    bins = (max(shape) if detectors is None else int(detectors)) | 1
    # An even multiple of n with at least pi * bins angles over the turn.
    half = n * math.ceil(math.pi * bins / (2 * n))
    fine = angle[0] + np.arange(half) * (math.pi / half)
    return FanGeometry(
        forward=create_geometry(shape, fine, detectors=bins),
        backward=create_geometry(shape, angle[0] + turn, detectors=bins),
    )


def _turned(
    sinogram: Float32[Array, "n m"], angle_rad: Float32[Array, " m"]
) -> Float32[Array, "n m"]:
    """Returns f(beta + angle) for each column f, which is periodic over a turn."""
    n = sinogram.shape[0]
    order = jnp.arange(n // 2 + 1, dtype=jnp.float32)
    phase = jnp.exp(1j * order[:, None] * angle_rad[None])
    return jnp.fft.irfft(jnp.fft.rfft(sinogram, axis=0) * phase, n, axis=0)


def _sinc_matrix(
    bins: int, fan_angle_rad: Float32[Array, " m"], distance: Any
) -> Float32[Array, "d m"]:
    """Returns sinc(s - j), bin j's share in the ray at s = R sin(gamma)."""
    position = distance * jnp.sin(fan_angle_rad)
    bin_centre = jnp.arange(bins, dtype=jnp.float32) - bins // 2
    return jnp.sinc(position[None] - bin_centre[:, None])


def project_fan(
    geometry: FanGeometry,
    image: Real[Array, "h w"],
    fan_angle_rad: Float32[Array, " m"],
    distance: Any,
) -> Float32[Array, "n m"]:
    """Returns line integrals of one image along a fan beam's rays, in pixel units.

    Linear in the image. Only the image has a gradient, the exact adjoint.

    Args:
      geometry: geometry of `create_fan_geometry`.
      image: image of the geometry's shape.
      fan_angle_rad: angles between a view's rays and its central ray.
      distance: source to rotation centre, pixels; outside the circle that is seen.

    Returns:
      Fan sinogram, value times pixels.
    """
    fan_angle_rad, distance = jax.lax.stop_gradient((fan_angle_rad, distance))
    half = project(geometry.forward, image)
    # The opposite view is the same view mirrored; the detector is symmetric.
    turn = jnp.concatenate([half, half[:, ::-1]])
    matrix = _sinc_matrix(turn.shape[1], fan_angle_rad, distance)
    rays = jnp.matmul(turn, matrix, precision="highest")
    return _turned(rays, fan_angle_rad)[:: turn.shape[0] // geometry.views]


def rebin(
    geometry: FanGeometry,
    sinogram: Float32[Array, "n m"],
    fan_angle_rad: Float32[Array, " m"],
    distance: Any,
) -> Float32[Array, "n d"]:
    """Returns the parallel-beam sinogram at the geometry's `backward` angles.

    Linear in the fan-beam sinogram. Only the sinogram has a gradient, the exact
    adjoint. The other arguments are those of `project_fan`.
    """
    fan_angle_rad, distance = jax.lax.stop_gradient((fan_angle_rad, distance))
    rays = _turned(sinogram, -fan_angle_rad)
    width = distance * jnp.cos(fan_angle_rad) * jnp.gradient(fan_angle_rad)
    matrix = _sinc_matrix(geometry.backward.detectors, fan_angle_rad, distance)
    return jnp.matmul(rays, (matrix * width[None]).T, precision="highest")


def backproject_fan(
    geometry: FanGeometry,
    sinogram: Float32[Array, "n m"],
    fan_angle_rad: Float32[Array, " m"],
    distance: Any,
    response: Float32[Array, " k"],
) -> Float32[Array, "h w"]:
    """Rebins the sinogram, then calls `projection.backproject` with the response."""
    views = rebin(geometry, sinogram, fan_angle_rad, distance)
    return backproject(geometry.backward, views, response)


def _adjoint(
    geometry: FanGeometry, sinogram: Array, fan_angle_rad: Array, distance: Array
) -> Array:
    def forward(image: Array) -> Array:
        return project_fan(geometry, image, fan_angle_rad, distance)

    _, transpose = jax.vjp(forward, jnp.zeros(geometry.shape, jnp.float32))
    return transpose(sinogram)[0]


@jax.jit
def _jit_project_fan(
    geometry: FanGeometry, image: Array, fan_angle_rad: Array, distance: Array
) -> Array:
    return jax.lax.map(
        lambda one: project_fan(geometry, one[0], fan_angle_rad, one[1]),
        (image, distance),
    )


@jax.jit
def _jit_backproject_fan(
    geometry: FanGeometry,
    sinogram: Array,
    fan_angle_rad: Array,
    distance: Array,
    response: Array | None,
) -> Array:
    def one(pair: tuple[Array, Array]) -> Array:
        if response is None:
            return _adjoint(geometry, pair[0], fan_angle_rad, pair[1])
        return backproject_fan(geometry, pair[0], fan_angle_rad, pair[1], response)

    return jax.lax.map(one, (sinogram, distance))


def check_source_distance(
    source_distance_mm: Any, radius: int, spacing_mm: Any, *, nearest: float = 1.0
) -> None:
    """Checks that the source is outside the circle that is seen.

    Args:
      source_distance_mm: source to rotation centre.
      radius: radius of the circle, pixels.
      spacing_mm: one or more concrete numbers.
      nearest: the least distance, in radii of the circle.

    Raises:
      ValueError: The source is inside the circle or too near.
    """
    circle_mm = radius * float(np.max(spacing_mm))
    least_mm = nearest * circle_mm
    if not (math.isfinite(source_distance_mm) and source_distance_mm > least_mm):
        raise ValueError(
            f"source_distance_mm = {source_distance_mm}; finite and above "
            f"{least_mm:.1f} mm, or the source lies inside the image's circle, of "
            f"radius {circle_mm:.1f} mm, or too near it. Scanners have about 600 mm."
        )


def _fan_angles(fan_angle_rad: Any) -> Array:
    angle = np.asarray(fan_angle_rad, np.float64)
    if (
        angle.ndim != 1
        or angle.size < 2
        or not np.all(np.abs(angle) < math.pi / 2)
        or not np.all(np.diff(angle) > 0)
    ):
        raise ValueError(
            f"fan_angle_rad has shape {angle.shape}; (m,) increasing angles, m >= 2, "
            "within a quarter turn of the central ray."
        )
    return jnp.asarray(angle, jnp.float32)


def _distances(
    source_distance_mm: Any, geometry: FanGeometry, factor: Array
) -> Float32[Array, " b"]:
    if not isinstance(factor, jax.core.Tracer):
        check_source_distance(source_distance_mm, geometry.radius, factor)
    return jnp.float32(source_distance_mm) / factor.reshape(-1)


def fan_beam_radon(
    image: Real[Array | np.ndarray, "..."],
    source_angle_rad: Any,
    fan_angle_rad: Any,
    *,
    source_distance_mm: float | int,
    spacing_mm: Any = 1.0,
) -> Float32[Array, "*b n m"]:
    """Returns line integrals of images along the rays of an equiangular fan beam.

    They are exact for the band-limited image; the module docstring states conventions.
    Pixels outside the circle of diameter max(h, w) are not seen.

    Args:
      image: `*b h w`, real.
      source_angle_rad: (n,) angles of the source, evenly over a whole turn.
      fan_angle_rad: (m,) increasing angles to the central ray, concrete.
      source_distance_mm: source to rotation centre.
      spacing_mm: size of the square pixels, mm: one number, or one for each image.

    Returns:
      Sinograms: value times mm.

    Raises:
      ValueError: The source is inside the image's circle, or angles, sizes or spacing
        are not accepted.
    """
    check_rank(image, "(*b, h, w)")
    h, w = image.shape[-2:]
    batch = image.shape[:-2]
    geometry = create_fan_geometry((h, w), source_angle_rad)
    factor = spacing_factor(spacing_mm, batch)
    distance = _distances(source_distance_mm, geometry, factor)
    fan_angle = _fan_angles(fan_angle_rad)
    flat = jnp.asarray(image, jnp.float32).reshape(-1, h, w)
    sinogram = _jit_project_fan(geometry, flat, fan_angle, distance)
    return sinogram.reshape(*batch, *sinogram.shape[1:]) * factor


def fan_beam_backprojection(
    sinogram: Real[Array | np.ndarray, "..."],
    source_angle_rad: Any,
    fan_angle_rad: Any,
    filter_name: str = "ramp",
    *,
    source_distance_mm: float | int,
    shape: tuple[int, int],
    spacing_mm: Any = 1.0,
    cutoff: float | int = 1.0,
    circle: bool = False,
) -> Float32[Array, "*b h w"]:
    """Reconstructs images from equiangular fan-beam sinograms.

    The sinograms are rebinned, filtered and backprojected. The filter `none` gives the
    exact adjoint of `fan_beam_radon` instead.

    Args:
      sinogram: `*b n m`, as `fan_beam_radon` returns them.
      source_angle_rad: (n,) angles of the source, evenly over a whole turn.
      fan_angle_rad: (m,) increasing angles to the central ray, concrete. Rays should
        be at most one pixel apart at the centre, R dgamma <= spacing_mm.
      filter_name: a name of `reconstruction_filter.FILTERS`.
      source_distance_mm: source to rotation centre.
      shape: (h, w) of the image.
      spacing_mm: size of the square pixels, mm: one number, or one for each image.
      cutoff: see `filter_response`.
      circle: whether to set pixels outside the inscribed circle to zero.

    Returns:
      Images: the sinogram's unit per mm.

    Raises:
      ValueError: Angles do not fit the sinogram, the source is inside the image's
        circle, or filter, size or spacing is not accepted.
    """
    check_rank(sinogram, "(*b, n, m)")
    n, m = sinogram.shape[-2:]
    if np.shape(source_angle_rad) != (n,) or np.shape(fan_angle_rad) != (m,):
        raise ValueError(
            f"a sinogram of {n} views and {m} rays, but source_angle_rad of shape "
            f"{np.shape(source_angle_rad)} and fan_angle_rad of shape "
            f"{np.shape(fan_angle_rad)}."
        )
    batch = sinogram.shape[:-2]
    geometry = create_fan_geometry(shape, source_angle_rad)
    factor = spacing_factor(spacing_mm, batch)
    distance = _distances(source_distance_mm, geometry, factor)
    fan_angle = _fan_angles(fan_angle_rad)
    response = filter_response(filter_name, geometry.padded, cutoff=cutoff)
    adjoint = filter_name == "none"
    image = _jit_backproject_fan(
        geometry,
        jnp.asarray(sinogram, jnp.float32).reshape(-1, n, m),
        fan_angle,
        distance,
        None if adjoint else jnp.asarray(response),
    )
    image = image.reshape(*batch, *geometry.shape)
    image = image * (factor if adjoint else (math.pi / n) / factor)
    if circle:
        image = image * inscribed_circle(geometry.shape).astype(np.float32)
    return image

"""Parallel-beam projection and filtered backprojection, in the Fourier domain.

The projector reads the views' spectra from the image's spectrum (`fourier_grid`
describes the method) and transforms them back. The image counts as band-limited: pixels
are samples, not squares. Filtered backprojection multiplies the spectra of the views by
|f| and a window, and applies the exact adjoint of the projector.

`radon` and `filtered_backprojection` are public: whole operators on batches, for users
and benchmarks. The low-dose simulation uses `project` and `backproject`.

Conventions, as in `skimage.transform.radon` with circle=True:
- images are (row, column), row downwards; the rotation centre is pixel
  (h // 2, w // 2); the detector's centre is bin d // 2;
- a view at angle theta sees s = x cos(theta) - y sin(theta), x along columns and y
  along rows in pixels from the centre: angle 0 sums along columns;
- detector spacing = pixel spacing (square pixels).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Real

from ipv2.kernels import nonuniform_fft
from ipv2.kernels.fourier_grid import Geometry, create_geometry
from ipv2.kernels.reconstruction_filter import FILTERS, filter_response
from ipv2.kernels.slice_loop import slice_by_slice

__all__ = [
    "FILTERS",
    "Geometry",
    "backproject",
    "create_geometry",
    "filtered_backprojection",
    "inscribed_circle",
    "project",
    "radon",
    "uniform_angles",
]


def uniform_angles(views: int) -> np.ndarray:
    """Returns (views,) angles in radians, evenly over half a turn, [0, pi)."""
    if views < 1:
        raise ValueError(f"views = {views}; at least 1 is needed.")
    return np.arange(views) * (math.pi / views)


def _project(
    geometry: Geometry,
    image: Float32[Array, "h w"],
    response: Float32[Array, " k"],
) -> Float32[Array, "n d"]:
    """Returns the views of the image, their spectra multiplied by response."""
    spectrum = nonuniform_fft.view_spectra(geometry, image) * response[None]
    view = jnp.fft.irfft(spectrum, geometry.padded)
    start = geometry.padded // 2 - geometry.detectors // 2
    return view[:, start : start + geometry.detectors]


def _backproject(
    geometry: Geometry,
    sinogram: Float32[Array, "n d"],
    response: Float32[Array, " k"],
) -> Float32[Array, "h w"]:
    """Applies the adjoint of `_project` after multiplying view spectra by response."""
    before = geometry.padded // 2 - geometry.detectors // 2
    after = geometry.padded - before - geometry.detectors
    spectrum = jnp.fft.rfft(jnp.pad(sinogram, ((0, 0), (before, after))))
    # The transpose of irfft counts all frequencies but the first and last twice.
    twice = np.full(geometry.padded // 2 + 1, 2.0 / geometry.padded, np.float32)
    twice[[0, -1]] /= 2
    return nonuniform_fft.view_spectra_adjoint(
        geometry, spectrum * (response * twice)[None]
    )


def _over_batch(operator: Any, geometry: Geometry, array: Any, response: Any) -> Array:
    array = array.astype(jnp.float32)
    if array.ndim == 2:
        return operator(geometry, array, response)
    flat = array.reshape(-1, *array.shape[-2:])
    result = slice_by_slice(
        lambda constants, one: operator(constants[0], one, constants[1]),
        (flat,),
        (geometry, response),
    )
    return result.reshape(*array.shape[:-2], *result.shape[1:])


@jax.custom_vjp
def _filtered_project(geometry: Geometry, image: Any, response: Any) -> Array:
    return _over_batch(_project, geometry, image, response)


@jax.custom_vjp
def _filtered_backproject(geometry: Geometry, sinogram: Any, response: Any) -> Array:
    return _over_batch(_backproject, geometry, sinogram, response)


# E is the zero-padding of a view, H the filter of padded views, A the projector onto
# padded views: project = E' H A and backproject = A' H E are transposes of each other.
def _project_fwd(geometry: Geometry, image: Any, response: Any) -> tuple[Array, Any]:
    return _filtered_project(geometry, image, response), (geometry, response)


def _project_bwd(residual: Any, cotangent: Array) -> tuple[None, Array, None]:
    geometry, response = residual
    return None, _filtered_backproject(geometry, cotangent, response), None


def _backproject_fwd(
    geometry: Geometry, sinogram: Any, response: Any
) -> tuple[Array, Any]:
    return _filtered_backproject(geometry, sinogram, response), (geometry, response)


def _backproject_bwd(residual: Any, cotangent: Array) -> tuple[None, Array, None]:
    geometry, response = residual
    return None, _filtered_project(geometry, cotangent, response), None


_filtered_project.defvjp(_project_fwd, _project_bwd)
_filtered_backproject.defvjp(_backproject_fwd, _backproject_bwd)


def project(
    geometry: Geometry, image: Real[Array, "*b h w"]
) -> Float32[Array, "*b n d"]:
    """Returns line integrals of images, in pixel units: `radon` with given tables.

    Linear in the image. The gradient is the exact adjoint, `backproject` of the
    cotangent with a response of ones. The geometry has no gradient. Computed in
    float32, slice by slice: an image's result does not depend on its batch. Reverse
    mode only.

    Args:
      geometry: geometry of `create_geometry`.
      image: real images of the geometry's shape.

    Returns:
      Sinograms, value times pixels.
    """
    ones = jnp.ones(geometry.padded // 2 + 1, jnp.float32)
    return _filtered_project(geometry, image, ones)


def backproject(
    geometry: Geometry,
    sinogram: Real[Array, "*b n d"],
    response: Float32[Array, " k"],
) -> Float32[Array, "*b h w"]:
    """Applies a filter along the detector, then the exact adjoint of `project`.

    Linear in the sinogram; the gradient is its exact adjoint. The filter counts as a
    constant: its gradient is zero. Computed in float32. Reverse mode only.

    Args:
      geometry: geometry of `create_geometry`.
      sinogram: views of the geometry's size.
      response: (padded // 2 + 1,) factor at each frequency, from `filter_response`;
        ones for the plain adjoint.

    Returns:
      Images.
    """
    return _filtered_backproject(geometry, sinogram, response)


_jit_project = jax.jit(project)
_jit_backproject = jax.jit(backproject)


def spacing_factor(spacing_mm: Any, batch: tuple[int, ...]) -> Array:
    """Returns spacing_mm, one or one per image, shaped to multiply `*b . .` arrays."""
    spacing = jnp.asarray(spacing_mm, jnp.float32)
    if not isinstance(spacing, jax.core.Tracer) and not (
        np.all(np.isfinite(spacing)) and np.all(np.asarray(spacing) > 0)
    ):
        raise ValueError(f"spacing_mm = {spacing_mm}; a finite size above 0 mm.")
    if spacing.shape not in ((), batch):
        raise ValueError(
            f"spacing_mm has shape {spacing.shape}; one number, or one for each image "
            f"of the batch {batch}."
        )
    return jnp.broadcast_to(spacing, batch)[..., None, None]


def check_rank(array: Any, words: str) -> None:
    if np.ndim(array) < 2:
        raise ValueError(f"got an array of shape {np.shape(array)}; expected {words}.")


def radon(
    image: Real[Array | np.ndarray, "..."],
    angle_rad: Any,
    *,
    spacing_mm: Any = 1.0,
    detectors: int | None = None,
) -> Float32[Array, "*b n d"]:
    """Returns line integrals of images along parallel rays.

    p(theta, s) = integral of image along the line x cos(theta) - y sin(theta) = s.

    Compiled once per shape. Inside a jitted function the tables become constants of it:
    there, prefer `project` with a `Geometry` as argument.

    Args:
      image: `*b h w`, real, any size, odd or even, square or not.
      angle_rad: (n,) angles in radians, concrete.
      spacing_mm: size of the square pixels and of the bins, mm: one number, or one for
        each image. 1 gives integrals in pixels.
      detectors: bins per view; see `create_geometry`.

    Returns:
      Sinograms: value times mm.

    Raises:
      ValueError: Spacing, size or angles are not accepted.
    """
    check_rank(image, "(*b, h, w)")
    h, w = image.shape[-2:]
    geometry = create_geometry((h, w), angle_rad, detectors=detectors)
    factor = spacing_factor(spacing_mm, image.shape[:-2])
    flat = jnp.asarray(image).reshape(-1, h, w)
    sinogram = _jit_project(geometry, flat)
    return sinogram.reshape(*image.shape[:-2], *sinogram.shape[1:]) * factor


def filtered_backprojection(
    sinogram: Real[Array | np.ndarray, "..."],
    angle_rad: Any,
    filter_name: str = "ramp",
    *,
    shape: tuple[int, int] | None = None,
    spacing_mm: Any = 1.0,
    cutoff: float | int = 1.0,
    circle: bool = False,
    linear_interpolation: bool = False,
) -> Float32[Array, "*b h w"]:
    """Reconstructs images from parallel-beam sinograms.

    image = pi / n * A' H p / spacing_mm, with the projector A in pixels and the filter
    H, for angles that cover half a turn (or whole turns) evenly. The filter `none` only
    keeps the projector's scale: A' p * spacing_mm is the exact adjoint of `radon`.

    Args:
      sinogram: `*b n d`, as `radon` returns them.
      angle_rad: (n,) angles in radians, concrete.
      filter_name: one of `FILTERS`.
      shape: (h, w) of the image; (d, d) if None.
      spacing_mm: size of the square pixels and of the bins, mm: one number, or one for
        each image.
      cutoff: see `filter_response`.
      circle: whether to set pixels outside the inscribed circle, which some views do
        not see, to zero.
      linear_interpolation: see `filter_response`.

    Returns:
      Images: the sinogram's unit per mm.

    Raises:
      ValueError: The angles do not match the views, or filter, spacing or size is not
        accepted.
    """
    check_rank(sinogram, "(*b, n, d)")
    n, d = sinogram.shape[-2:]
    if np.shape(angle_rad) != (n,):
        raise ValueError(
            f"{n} views but angle_rad of shape {np.shape(angle_rad)}; give one angle "
            "per view."
        )
    geometry = create_geometry(shape or (d, d), angle_rad, detectors=d)
    response = filter_response(
        filter_name,
        geometry.padded,
        cutoff=cutoff,
        linear_interpolation=linear_interpolation,
    )
    flat = jnp.asarray(sinogram).reshape(-1, n, d)
    image = _jit_backproject(geometry, flat, jnp.asarray(response))
    image = image.reshape(*sinogram.shape[:-2], *geometry.shape)
    factor = spacing_factor(spacing_mm, sinogram.shape[:-2])
    image = image * (factor if filter_name == "none" else (math.pi / n) / factor)
    if circle:
        image = image * inscribed_circle(geometry.shape).astype(np.float32)
    return image


def inscribed_circle(shape: tuple[int, int]) -> np.ndarray:
    """Returns a mask (h, w) of pixels within min(h, w) // 2 of (h // 2, w // 2)."""
    h, w = shape
    row, column = np.mgrid[:h, :w]
    distance = (row - h // 2) ** 2 + (column - w // 2) ** 2
    return distance <= (min(h, w) // 2) ** 2

"""Parallel-beam projection and filtered backprojection, in the Fourier domain.

Fourier slice theorem: the 1-D spectrum of a view is the image's 2-D spectrum along the
view's direction,

    P(f, theta) = F(f cos(theta), -f sin(theta)),    0 <= f <= 1/2 cycles a pixel.

F at those points is a non-uniform FFT: divide the image by the transform of a gridding
kernel, zero-pad to twice the size, FFT, and sum W x W grid neighbours weighted by a
separable Kaiser-Bessel kernel (Beatty, Nishimura, Pauly, IEEE TMI 24(6), 2005). The
image is taken as band-limited: pixels are samples, not squares.

Filtered backprojection multiplies the spectra of the views by |f| and a window and
applies the exact adjoint of the projector. The adjoint is written as a gather too
(each grid cell lists the samples that touch it): it runs in parallel and sums in a
fixed order, where a scatter-add would do neither.

Conventions, as in `skimage.transform.radon` with circle=True:
- images are (row, column), row downwards; the rotation centre is pixel
  (h // 2, w // 2); the detector's centre is bin d // 2;
- a view at angle theta sees s = x cos(theta) - y sin(theta), x along columns and y
  along rows in pixels from the centre: angle 0 sums along columns;
- detector spacing = pixel spacing (square pixels).

Everything that depends on sizes and angles alone is in `Geometry`: NumPy, outside jit,
cached. The batch is the last axis of every gather, so that what a sample needs of all
images is contiguous.
"""

import dataclasses
import functools
import math
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex64, Float32, Real

FilterName: TypeAlias = Literal[
    "ramp", "shepp-logan", "cosine", "hamming", "hann", "none"
]
FILTERS: tuple[str, ...] = get_args(FilterName)

# Neighbours a sample is interpolated from along each axis, and oversampling of the
# grid: relative error about 1e-4, an order below what float32 HU need.
_WIDTH = 4
_OVERSAMPLING = 2
_MARGIN = _WIDTH // 2
# Contributions to a grid cell, rounded up to one of these: the first are unrolled; the
# others, for the cells around zero frequency where all views meet, are reductions.
_UNROLLED = (4, 6, 8, 12, 16, 24)
_REDUCED = (32, 48, 64, 96, 128, 256, 512, 1024)
# A bucket of fewer cells, one in so many or this many, joins the next larger one: fewer
# operations to compile.
_CELLS_PER_BUCKET = 400
_LEAST_CELLS = 100


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "apodisation",
        "first",
        "weight_x",
        "weight_y",
        "conjugate",
        "cell_sample",
        "cell_weight",
        "cell_place",
    ],
    meta_fields=["shape", "views", "detectors", "grid", "padded"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where each sample of each view lies on the Fourier grid, and the reverse.

    A pytree: pass it to jitted functions as an argument, so that its tables (some
    50 MB at 512^2 and 512 views) are not compiled in as constants.

    Attributes:
      shape: (h, w) of the image.
      views: number of angles, n.
      detectors: bins of a view, d.
      grid: oversampled (rows, columns), even.
      padded: length of a view's FFT, even; K = padded // 2 + 1 frequencies.
      apodisation: (h, w), 1 / transform of the gridding kernel.
      first: (n K,) flat index of a sample's first neighbour on the half-plane grid.
      weight_x: (W, n K) weights along column frequency, with the centring signs.
      weight_y: (W, n K) the same along row frequency.
      conjugate: (n, 1, 1) views read at the opposite point of the half-plane.
      cell_sample: per bucket (L, cells), the samples that touch a cell.
      cell_weight: per bucket (L, cells), their weights; 0 where padded.
      cell_place: (grid cells,) where a cell's sum is among the buckets' sums.
    """

    shape: tuple[int, int]
    views: int
    detectors: int
    grid: tuple[int, int]
    padded: int
    # Shapes are in words above: JAX also builds pytrees of things that are not arrays.
    apodisation: Any
    first: Any
    weight_x: Any
    weight_y: Any
    conjugate: Any
    cell_sample: tuple[Any, ...]
    cell_weight: tuple[Any, ...]
    cell_place: Any

    @property
    def extended(self) -> tuple[int, int]:
        """Size of the half-plane grid with its margins: (column, row) frequencies."""
        rows, columns = self.grid
        return columns // 2 + 1 + 2 * _MARGIN, rows + 1 + 2 * _MARGIN


def _fast_even(size: float | int) -> int:
    """Smallest even 2^a 3^b 5^c that is not below size."""
    candidate = max(2, math.ceil(size))
    while True:
        if candidate % 2 == 0:
            rest = candidate
            for prime in (2, 3, 5):
                while rest % prime == 0:
                    rest //= prime
            if rest == 1:
                return candidate
        candidate += 1


def _beta() -> float:
    """Beatty et al. 2005, equation 5: the kernel's shape for W and oversampling."""
    ratio = _WIDTH / _OVERSAMPLING
    return math.pi * math.sqrt((ratio * (_OVERSAMPLING - 0.5)) ** 2 - 0.8)


def _neighbours(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First of W grid points around each position, and their weights (W, ...)."""
    first = np.ceil(position - _WIDTH / 2).astype(np.int64)
    tap = np.arange(_WIDTH).reshape((-1,) + (1,) * position.ndim)
    distance = first + tap - position
    inside = np.maximum(0.0, 1 - (2 * distance / _WIDTH) ** 2)
    weight = np.i0(_beta() * np.sqrt(inside)) / _WIDTH
    # The image's centre sits at the middle of the padded grid: half a period, (-1)^k.
    return first, weight * (1 - 2 * ((first + tap) % 2))


def _kernel_transform(size: int, grid: int) -> np.ndarray:
    """Transform of the gridding kernel at the pixels of one axis."""
    position = (np.arange(size) - size // 2) / grid
    root = np.sqrt(_beta() ** 2 - (math.pi * _WIDTH * position) ** 2)
    return np.sinh(root) / root


def _cell_tables(
    cell: np.ndarray, weight: np.ndarray, sample: np.ndarray, cells: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Samples and weights by cell, in buckets of cells with about as many samples."""
    order = np.argsort(cell, kind="stable")
    weight, sample = weight[order], sample[order]
    count = np.bincount(cell, minlength=cells)
    start = np.cumsum(count) - count
    samples, weights = [], []
    place = np.zeros(cells, np.int64)
    filled = 1  # place 0 holds the zero of untouched cells
    low = 0
    least = max(_LEAST_CELLS, np.count_nonzero(count) // _CELLS_PER_BUCKET)
    for level in (*_UNROLLED, *_REDUCED, int(count.max())):
        members = np.flatnonzero((count > low) & (count <= level))
        if not members.size or (members.size < least and level < count.max()):
            continue
        low = level
        tap = np.arange(level)[:, None]
        used = tap < count[members]
        entry = np.where(used, start[members] + tap, 0)
        samples.append(np.where(used, sample[entry], 0).astype(np.int32))
        weights.append(np.where(used, weight[entry], 0.0).astype(np.float32))
        place[members] = filled + np.arange(members.size)
        filled += members.size
    return samples, weights, place.astype(np.int32)


@functools.lru_cache(maxsize=8)
def _cached_geometry(
    shape: tuple[int, int], angle_bytes: bytes, detectors: int
) -> Geometry:
    h, w = shape
    angle = np.frombuffer(angle_bytes, np.float64)
    rows, columns = _fast_even(_OVERSAMPLING * h), _fast_even(_OVERSAMPLING * w)
    # A view must not wrap around into itself: neither what the projection of the
    # whole rectangle needs, nor what the ramp's tails need (twice the detector).
    padded = _fast_even(max(2 * detectors, (math.hypot(h, w) + detectors) / 2, 16))
    frequency = np.arange(padded // 2 + 1) / padded

    # cos(pi / 2) must be 0, or rounding decides which half-plane is read.
    direction_x = np.round(np.cos(angle), 15)[:, None]
    direction_y = np.round(-np.sin(angle), 15)[:, None]
    conjugate = direction_x < 0
    sign = np.where(conjugate, -1.0, 1.0)
    x = (sign * direction_x * frequency * columns).reshape(-1)
    y = (sign * direction_y * frequency * rows).reshape(-1)
    first_x, weight_x = _neighbours(x)
    first_y, weight_y = _neighbours(y)
    # The detector's centre sits at the middle of the padded view: (-1)^k once more.
    weight_x = weight_x * np.tile(1 - 2 * (np.arange(frequency.size) % 2), angle.size)

    stride = rows + 1 + 2 * _MARGIN
    extended = (columns // 2 + 1 + 2 * _MARGIN) * stride
    first = (first_x + _MARGIN) * stride + first_y + rows // 2 + _MARGIN
    tap = np.arange(_WIDTH)
    cell = first + stride * tap[:, None, None] + tap[None, :, None]
    weight = weight_x[:, None] * weight_y[None]
    sample = np.broadcast_to(np.arange(first.size, dtype=np.int32), cell.shape)
    samples, weights, place = _cell_tables(
        cell.reshape(-1), weight.reshape(-1), sample.reshape(-1), extended
    )
    apodisation = 1 / np.outer(
        _kernel_transform(h, rows), _kernel_transform(w, columns)
    )
    geometry = Geometry(
        shape=shape,
        views=angle.size,
        detectors=detectors,
        grid=(rows, columns),
        padded=padded,
        apodisation=apodisation.astype(np.float32),
        first=first.astype(np.int32),
        weight_x=weight_x.astype(np.float32),
        weight_y=weight_y.astype(np.float32),
        conjugate=conjugate[..., None],
        cell_sample=tuple(samples),
        cell_weight=tuple(weights),
        cell_place=place,
    )
    # Arrays, not tracers, even when the first call comes from inside a jitted function.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, geometry)


def create_geometry(
    shape: tuple[int, int], angle_rad: Any, *, detectors: int | None = None
) -> Geometry:
    """Tables for images of one size seen from given angles; cached.

    Args:
      shape: (h, w) of the image, each at least 2.
      angle_rad: (n,) angles in radians, any values in any order; concrete.
      detectors: bins of a view, d; max(h, w) if None. What lies outside the circle of
        that diameter is seen by a part of the views only: `math.ceil(math.hypot(h, w))`
        bins see every pixel from everywhere.

    Returns:
      The geometry.

    Raises:
      ValueError: sizes or angles that make no geometry.
      TypeError: angles that are traced; they must be known outside jit.
    """
    if isinstance(angle_rad, jax.core.Tracer):
        raise TypeError(
            "angle_rad is traced; the tables of the projector are made outside jit. "
            "Pass a NumPy array that is not an argument of the jitted function."
        )
    angle = np.ascontiguousarray(angle_rad, dtype=np.float64)
    if angle.ndim != 1 or angle.size == 0 or not np.all(np.isfinite(angle)):
        raise ValueError(
            f"angle_rad has shape {angle.shape}; it must be (n,), n >= 1, of finite "
            "angles in radians."
        )
    h, w = (int(size) for size in shape)
    if min(h, w) < 2:
        raise ValueError(f"image of {h} x {w} pixels; at least 2 x 2 is needed.")
    d = max(h, w) if detectors is None else int(detectors)
    if d < 2:
        raise ValueError(f"detectors = {d}; at least 2 bins are needed.")
    return _cached_geometry((h, w), angle.tobytes(), d)


def uniform_angles(views: int) -> np.ndarray:
    """(views,) angles in radians, evenly over half a turn, [0, pi)."""
    if views < 1:
        raise ValueError(f"views = {views}; at least 1 is needed.")
    return np.arange(views) * (math.pi / views)


def _pad_to(before: int, size: int, total: int) -> tuple[int, int]:
    return before, total - before - size


def _image_spectrum(
    geometry: Geometry, image: Float32[Array, "b h w"]
) -> Complex64[Array, "x y b"]:
    """Oversampled spectrum on the half-plane x >= 0, with margins, batch last."""
    h, w = geometry.shape
    rows, columns = geometry.grid
    half = rows // 2
    image = image * geometry.apodisation[None]
    columns_pad = _pad_to(columns // 2 - w // 2, w, columns)
    spectrum = jnp.fft.rfft(jnp.pad(image, ((0, 0), (0, 0), columns_pad)))
    spectrum = jnp.swapaxes(spectrum, 1, 2)
    rows_pad = _pad_to(half - h // 2, h, rows)
    spectrum = jnp.fft.fft(jnp.pad(spectrum, ((0, 0), (0, 0), rows_pad)))
    spectrum = jnp.moveaxis(spectrum, 0, -1)
    # Row frequencies from -half - margin to half + margin.
    spectrum = jnp.concatenate(
        [spectrum[:, half - _MARGIN :], spectrum[:, : half + _MARGIN + 1]], axis=1
    )
    # A real image: F(-x, -y) = conj F(x, y) fills the margins beyond the half-plane.
    last = columns // 2
    below = spectrum[1 : _MARGIN + 1][::-1]
    above = spectrum[last - _MARGIN : last][::-1]
    return jnp.concatenate(
        [jnp.conj(below[:, ::-1]), spectrum, jnp.conj(above[:, ::-1])]
    )


def _image_spectrum_adjoint(
    geometry: Geometry, extended: Complex64[Array, "x y b"]
) -> Float32[Array, "b h w"]:
    h, w = geometry.shape
    rows, columns = geometry.grid
    half, last = rows // 2, columns // 2
    below, spectrum, above = jnp.split(extended, [_MARGIN, _MARGIN + last + 1])
    below, above = (jnp.conj(edge[::-1, ::-1]) for edge in (below, above))
    spectrum = spectrum.at[1 : _MARGIN + 1].add(below)
    spectrum = spectrum.at[last - _MARGIN : last].add(above)
    left, right = jnp.split(spectrum, [half + _MARGIN], axis=1)
    spectrum = jnp.concatenate(
        [
            right[:, : half - _MARGIN],
            right[:, half - _MARGIN :] + left[:, : 2 * _MARGIN + 1],
            left[:, 2 * _MARGIN + 1 :],
        ],
        axis=1,
    )
    spectrum = jnp.moveaxis(spectrum, -1, 0)
    top = half - h // 2
    spectrum = jnp.fft.ifft(spectrum, norm="forward")[:, :, top : top + h]
    spectrum = jnp.swapaxes(spectrum, 1, 2)
    # The transpose of a real FFT counts the frequencies it stores once; irfft counts
    # all but the first and the last twice.
    once = np.full(last + 1, 0.5, np.float32)
    once[[0, -1]] = 1.0
    image = jnp.fft.irfft(spectrum * once[None, None], columns, norm="forward")
    start = columns // 2 - w // 2
    return image[:, :, start : start + w] * geometry.apodisation[None]


def _interpolate(
    geometry: Geometry, extended: Complex64[Array, "x y b"]
) -> Complex64[Array, "s b"]:
    """Spectrum at the samples: W x W neighbours, weighted."""
    stride = extended.shape[1]
    table = extended.reshape(-1, extended.shape[-1])
    total = jnp.zeros((geometry.first.shape[0], table.shape[1]), table.dtype)
    for i in range(_WIDTH):
        for j in range(_WIDTH):
            index = geometry.first + (i * stride + j)
            weight = geometry.weight_x[i] * geometry.weight_y[j]
            value = table.at[index].get(mode="promise_in_bounds")
            total = total + value * weight[:, None]
    return total


def _interpolate_adjoint(
    geometry: Geometry, sample: Complex64[Array, "s b"]
) -> Complex64[Array, "x y b"]:
    """Sums at the grid cells of the samples that touch them."""
    sums = [jnp.zeros((1, sample.shape[1]), sample.dtype)]
    for index, weight in zip(geometry.cell_sample, geometry.cell_weight, strict=True):
        if index.shape[0] > _UNROLLED[-1]:
            value = sample.at[index].get(mode="promise_in_bounds")
            sums.append(jnp.sum(value * weight[..., None], axis=0))
            continue
        total = jnp.zeros((index.shape[1], sample.shape[1]), sample.dtype)
        for tap in range(index.shape[0]):
            value = sample.at[index[tap]].get(mode="promise_in_bounds")
            total = total + value * weight[tap][:, None]
        sums.append(total)
    cells = jnp.concatenate(sums).at[geometry.cell_place].get(mode="promise_in_bounds")
    return cells.reshape(*geometry.extended, sample.shape[1])


def _project(
    geometry: Geometry,
    image: Float32[Array, "b h w"],
    response: Float32[Array, " k"],
) -> Float32[Array, "b n d"]:
    """Views of the image, their spectra multiplied by response."""
    sample = _interpolate(geometry, _image_spectrum(geometry, image))
    spectrum = sample.reshape(geometry.views, -1, image.shape[0])
    spectrum = spectrum * response[None, :, None]
    spectrum = jnp.where(geometry.conjugate, jnp.conj(spectrum), spectrum)
    view = jnp.fft.irfft(jnp.moveaxis(spectrum, -1, 0), geometry.padded)
    start = geometry.padded // 2 - geometry.detectors // 2
    return view[:, :, start : start + geometry.detectors]


def _backproject(
    geometry: Geometry,
    sinogram: Float32[Array, "b n d"],
    response: Float32[Array, " k"],
) -> Float32[Array, "b h w"]:
    """Adjoint of `_project`, the spectra of the views multiplied by response first."""
    pad = _pad_to(
        geometry.padded // 2 - geometry.detectors // 2,
        geometry.detectors,
        geometry.padded,
    )
    spectrum = jnp.fft.rfft(jnp.pad(sinogram, ((0, 0), (0, 0), pad)))
    # The transpose of irfft: it reads all frequencies but the first and last twice.
    twice = np.full(geometry.padded // 2 + 1, 2.0 / geometry.padded, np.float32)
    twice[[0, -1]] /= 2
    spectrum = jnp.moveaxis(spectrum * (response * twice)[None, None], 0, -1)
    spectrum = jnp.where(geometry.conjugate, jnp.conj(spectrum), spectrum)
    sample = spectrum.reshape(-1, sinogram.shape[0])
    return _image_spectrum_adjoint(geometry, _interpolate_adjoint(geometry, sample))


def _over_batch(operator: Any, geometry: Geometry, array: Any, response: Any) -> Array:
    flat = array.astype(jnp.float32).reshape(-1, *array.shape[-2:])
    result = operator(geometry, flat, response)
    return result.reshape(*array.shape[:-2], *result.shape[1:])


@jax.custom_vjp
def _filtered_project(geometry: Geometry, image: Any, response: Any) -> Array:
    return _over_batch(_project, geometry, image, response)


@jax.custom_vjp
def _filtered_backproject(geometry: Geometry, sinogram: Any, response: Any) -> Array:
    return _over_batch(_backproject, geometry, sinogram, response)


# With E the zero-padding of a view, H the filter of padded views, A the projector onto
# padded views: project = E' H A, backproject = A' H E, each the other's transpose.
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
    """Line integrals of images, in pixel units: `radon` with its tables as argument.

    Linear in the image; the gradient is the exact adjoint, `backproject` of the
    cotangent with a response of ones. The geometry has no gradient. Computed in
    float32. Reverse mode only.

    Args:
      geometry: from `create_geometry`.
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
    """Exact adjoint of `project` after a filter along the detector.

    Linear in the sinogram; the gradient is its exact adjoint. The filter counts as a
    constant: its gradient is zero. Computed in float32. Reverse mode only.

    Args:
      geometry: from `create_geometry`.
      sinogram: views of the geometry's size.
      response: (padded // 2 + 1,) factor at each frequency, from `filter_response`;
        ones for the plain adjoint.

    Returns:
      Images.
    """
    return _filtered_backproject(geometry, sinogram, response)


_jit_project = jax.jit(project)
_jit_backproject = jax.jit(backproject)


def filter_response(
    filter_name: str,
    padded: int,
    *,
    cutoff: float | int = 1.0,
    linear_interpolation: bool = False,
) -> np.ndarray:
    """Frequency response of a reconstruction filter.

    The ramp is the transform of its band-limited spatial form, h(0) = 1/4,
    h(odd m) = -1 / (pi m)^2, h(even m) = 0 (Kak and Slaney 1988, equation 3.61):
    sampling |f| itself would zero the mean of the image. With u = f / cutoff, f in
    cycles a bin and the windows zero beyond u = 1/2:

    shepp-logan sin(pi u) / (pi u); cosine cos(pi u); hann 0.5 + 0.5 cos(2 pi u);
    hamming 0.54 + 0.46 cos(2 pi u).

    Args:
      filter_name: one of `FILTERS`.
      padded: even length of a view's FFT.
      cutoff: where the window ends, as a fraction of the detector's highest frequency,
        in (0, 1]: lower is softer.
      linear_interpolation: follow backprojection that interpolates linearly between
        bins, as scikit-image's: its factor sinc(f)^2 and the aliases of it, together
        sum_m sinc(f + m)^4 = (2 + cos(2 pi f)) / 3 of the power.

    Returns:
      (padded // 2 + 1,) float32.

    Raises:
      ValueError: unknown name, or a cut-off outside (0, 1].
    """
    if filter_name not in FILTERS:
        raise ValueError(f"filter_name = {filter_name!r}; one of {', '.join(FILTERS)}.")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff = {cutoff}; a fraction of Nyquist in (0, 1].")
    frequency = np.arange(padded // 2 + 1) / padded
    if filter_name == "none":
        response = np.ones_like(frequency)
    else:
        lag = np.minimum(np.arange(padded), padded - np.arange(padded))
        odd = lag % 2 == 1
        ramp = np.where(odd, -1 / (math.pi * np.where(odd, lag, 1)) ** 2, 0.0)
        ramp[0] = 0.25
        u = frequency / cutoff
        window = {
            "ramp": np.ones_like(u),
            "shepp-logan": np.sinc(u),
            "cosine": np.cos(math.pi * u),
            "hann": 0.5 + 0.5 * np.cos(2 * math.pi * u),
            "hamming": 0.54 + 0.46 * np.cos(2 * math.pi * u),
        }[filter_name]
        # 1e-9: the last frequency belongs to the window however u was rounded.
        response = np.fft.rfft(ramp).real * np.where(u <= 0.5 + 1e-9, window, 0.0)
    if linear_interpolation:
        response = response * np.sqrt((2 + np.cos(2 * math.pi * frequency)) / 3)
    return response.astype(np.float32)


def _spacing_factor(spacing_mm: Any, batch: tuple[int, ...]) -> Array:
    """spacing_mm, a number or one per image, shaped to multiply `*b . .` arrays."""
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


def _check_rank(array: Any, words: str) -> None:
    if np.ndim(array) < 2:
        raise ValueError(f"got an array of shape {np.shape(array)}; expected {words}.")


def radon(
    image: Real[Array | np.ndarray, "..."],
    angle_rad: Any,
    *,
    spacing_mm: Any = 1.0,
    detectors: int | None = None,
) -> Float32[Array, "*b n d"]:
    """Line integrals of images along parallel rays.

    p(theta, s) = integral of image along the line x cos(theta) - y sin(theta) = s.

    Compiled once per shape. Inside a jitted function the tables become its constants:
    there, prefer `project` with a `Geometry` passed in.

    Args:
      image: `*b h w`, real, any size, odd or even, square or not.
      angle_rad: (n,) angles in radians, concrete.
      spacing_mm: size of the square pixels and of the bins, mm: one number, or one for
        each image. 1 gives integrals in pixels.
      detectors: bins of a view; see `create_geometry`.

    Returns:
      Sinograms: value times mm.

    Raises:
      ValueError: a spacing, size or angle that makes no sense.
    """
    _check_rank(image, "(*b, h, w)")
    h, w = image.shape[-2:]
    geometry = create_geometry((h, w), angle_rad, detectors=detectors)
    factor = _spacing_factor(spacing_mm, image.shape[:-2])
    return _jit_project(geometry, jnp.asarray(image)) * factor


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
    """Images from parallel-beam sinograms.

    image = pi / n * A' H p / spacing_mm, A the projector in pixels, H the filter; for
    angles that cover half a turn (or whole turns) evenly. The filter `none` leaves out
    every scale but the projector's own: A' p * spacing_mm is the exact adjoint of
    `radon`.

    Args:
      sinogram: `*b n d`, as `radon` returns them.
      angle_rad: (n,) angles in radians, concrete.
      filter_name: one of `FILTERS`.
      shape: (h, w) of the image; (d, d) if None.
      spacing_mm: size of the square pixels and of the bins, mm: one number, or one for
        each image.
      cutoff: see `filter_response`.
      circle: zero the pixels outside the inscribed circle, which a part of the views
        does not see.
      linear_interpolation: see `filter_response`.

    Returns:
      Images: the sinogram's unit per mm.

    Raises:
      ValueError: as many angles as views are needed; unknown filter; a spacing or size
        that makes no sense.
    """
    _check_rank(sinogram, "(*b, n, d)")
    n, d = sinogram.shape[-2:]
    if np.shape(angle_rad) != (n,):
        raise ValueError(
            f"{n} views but angle_rad of shape {np.shape(angle_rad)}; one angle a view."
        )
    geometry = create_geometry(shape or (d, d), angle_rad, detectors=d)
    response = filter_response(
        filter_name,
        geometry.padded,
        cutoff=cutoff,
        linear_interpolation=linear_interpolation,
    )
    image = _jit_backproject(geometry, jnp.asarray(sinogram), jnp.asarray(response))
    factor = _spacing_factor(spacing_mm, sinogram.shape[:-2])
    image = image * (factor if filter_name == "none" else (math.pi / n) / factor)
    if circle:
        image = image * inscribed_circle(geometry.shape).astype(np.float32)
    return image


def inscribed_circle(shape: tuple[int, int]) -> np.ndarray:
    """(h, w) booleans: pixels within min(h, w) // 2 of pixel (h // 2, w // 2)."""
    h, w = shape
    row, column = np.mgrid[:h, :w]
    distance = (row - h // 2) ** 2 + (column - w // 2) ** 2
    return distance <= (min(h, w) // 2) ** 2

"""The spectrum of an image at the samples of the views, and its exact adjoint.

The functions take one image. Each operator is followed by its transpose; `fourier_grid`
describes the method and makes the tables. Neither direction scatters: the adjoint
reads, for each grid cell, the samples that touch it. So it runs in parallel and sums in
a fixed order.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex64, Float32

from ipv2.kernels.fourier_grid import MARGIN, UNROLLED, WIDTH, Geometry


def _pad_to(before: int, size: int, total: int) -> tuple[int, int]:
    return before, total - before - size


def _image_spectrum(
    geometry: Geometry, image: Float32[Array, "h w"]
) -> Complex64[Array, "x y"]:
    """Returns the oversampled spectrum on the half-plane x >= 0, with margins."""
    h, w = geometry.shape
    rows, columns = geometry.grid
    half, last = rows // 2, columns // 2
    columns_pad = _pad_to(last - w // 2, w, columns)
    spectrum = jnp.fft.rfft(
        jnp.pad(image * geometry.apodisation, ((0, 0), columns_pad))
    )
    rows_pad = _pad_to(half - h // 2, h, rows)
    spectrum = jnp.fft.fft(jnp.pad(spectrum.T, ((0, 0), rows_pad)))
    # Row frequencies from -half - margin to half + margin.
    spectrum = jnp.concatenate(
        [spectrum[:, half - MARGIN :], spectrum[:, : half + MARGIN + 1]], axis=1
    )
    # For a real image F(-x, -y) = conj F(x, y), which fills the margins.
    below = spectrum[1 : MARGIN + 1][::-1]
    above = spectrum[last - MARGIN : last][::-1]
    return jnp.concatenate(
        [jnp.conj(below[:, ::-1]), spectrum, jnp.conj(above[:, ::-1])]
    )


def _image_spectrum_adjoint(
    geometry: Geometry, extended: Complex64[Array, "x y"]
) -> Float32[Array, "h w"]:
    h, w = geometry.shape
    rows, columns = geometry.grid
    half, last = rows // 2, columns // 2
    below, spectrum, above = jnp.split(extended, [MARGIN, MARGIN + last + 1])
    below, above = (jnp.conj(edge[::-1, ::-1]) for edge in (below, above))
    spectrum = spectrum.at[1 : MARGIN + 1].add(below)
    spectrum = spectrum.at[last - MARGIN : last].add(above)
    left, right = jnp.split(spectrum, [half + MARGIN], axis=1)
    spectrum = jnp.concatenate(
        [
            right[:, : half - MARGIN],
            right[:, half - MARGIN :] + left[:, : 2 * MARGIN + 1],
            left[:, 2 * MARGIN + 1 :],
        ],
        axis=1,
    )
    top = half - h // 2
    spectrum = jnp.fft.ifft(spectrum, norm="forward")[:, top : top + h].T
    # The transpose of a real FFT counts each stored frequency once; irfft counts all
    # but the first and the last twice.
    once = np.full(last + 1, 0.5, np.float32)
    once[[0, -1]] = 1.0
    image = jnp.fft.irfft(spectrum * once[None], columns, norm="forward")
    start = last - w // 2
    return image[:, start : start + w] * geometry.apodisation


def _interpolate(
    geometry: Geometry, extended: Complex64[Array, "x y"]
) -> Complex64[Array, " s"]:
    """Spectrum at the samples: W x W neighbours, weighted."""
    stride = extended.shape[1]
    table = extended.reshape(-1)
    total = jnp.zeros(geometry.first.shape, table.dtype)
    for i in range(WIDTH):
        for j in range(WIDTH):
            index = geometry.first + (i * stride + j)
            weight = geometry.weight_x[i] * geometry.weight_y[j]
            total = total + table.at[index].get(mode="promise_in_bounds") * weight
    return total


def _interpolate_adjoint(
    geometry: Geometry, sample: Complex64[Array, " s"]
) -> Complex64[Array, "x y"]:
    """Returns, for each grid cell, the sum of the samples that touch it."""
    sums = [jnp.zeros(1, sample.dtype)]
    for index, weight in zip(geometry.cell_sample, geometry.cell_weight, strict=True):
        if index.shape[0] > UNROLLED[-1]:
            value = sample.at[index].get(mode="promise_in_bounds")
            sums.append(jnp.sum(value * weight, axis=0))
            continue
        total = jnp.zeros(index.shape[1], sample.dtype)
        for tap in range(index.shape[0]):
            value = sample.at[index[tap]].get(mode="promise_in_bounds")
            total = total + value * weight[tap]
        sums.append(total)
    cells = jnp.concatenate(sums).at[geometry.cell_place].get(mode="promise_in_bounds")
    return cells.reshape(geometry.extended)


def view_spectra(
    geometry: Geometry, image: Float32[Array, "h w"]
) -> Complex64[Array, "n k"]:
    """Returns the views' spectra of one image, frequencies 0 to 1/2 per bin."""
    sample = _interpolate(geometry, _image_spectrum(geometry, image))
    spectrum = sample.reshape(geometry.views, -1)
    return jnp.where(geometry.conjugate, jnp.conj(spectrum), spectrum)


def view_spectra_adjoint(
    geometry: Geometry, spectrum: Complex64[Array, "n k"]
) -> Float32[Array, "h w"]:
    """Applies the transpose of `view_spectra` for the inner product Re(a conj(b))."""
    spectrum = jnp.where(geometry.conjugate, jnp.conj(spectrum), spectrum)
    cells = _interpolate_adjoint(geometry, spectrum.reshape(-1))
    return _image_spectrum_adjoint(geometry, cells)

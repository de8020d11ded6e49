"""Projector and low-dose chain against scikit-image, side by side in one process.

    python -m tests.benchmarks.projection [--size 512] [--batch 8] [--repeats 3]

Prints seconds a slice (the best of the repeats, taken in turns) and the ratios, then
how time grows with image size.
"""

import argparse
import time
from collections.abc import Callable

import jax
import numpy as np
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from ipv2.kernels import photon_noise, projection
from tests.oracles.projection import skimage_backprojection, skimage_sinogram

MU_WATER = 0.0192


def head(size: int, batch: int) -> np.ndarray:
    """(batch, size, size) attenuation in units of water, zero outside the circle."""
    image = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    image = image * projection.inscribed_circle((size, size))
    return np.stack([image] * batch).astype(np.float32)


def best(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Best seconds of each call, taken in turns; the first round is warm-up."""
    seconds = dict.fromkeys(calls, np.inf)
    for number in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def skimage_chain(image: np.ndarray, angle: np.ndarray, spacing_mm: float) -> object:
    """The physical model's noise for one slice, with scikit-image and NumPy."""
    rng = np.random.default_rng(0)
    line = skimage_sinogram(image, angle) * MU_WATER * spacing_mm
    mean = 0.02 * 1.5e5 * np.exp(-line)
    seen = rng.poisson(mean) + rng.normal(0, 10**0.5, mean.shape)
    error = -np.log(np.maximum(seen, 1) / mean)
    return skimage_backprojection(error, angle, "hann")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    size, batch = options.size, options.batch
    spacing_mm = 400 / size
    angle = projection.uniform_angles(size)
    images = head(size, batch)
    image_hu = (1000 * images - 1000).astype(np.float32)
    sinograms = np.asarray(projection.radon(images, angle))
    scan = photon_noise.DoseParams(dose=0.02)
    key = jax.random.key(0)
    calls: dict[str, Callable[[], object]] = {
        "radon": lambda: projection.radon(images, angle),
        "radon skimage": lambda: skimage_sinogram(images[0], angle),
        "fbp": lambda: projection.filtered_backprojection(sinograms, angle, "hann"),
        "fbp skimage": lambda: skimage_backprojection(sinograms[0], angle, "hann"),
        "chain": lambda: photon_noise.simulate_low_dose(
            key, image_hu, spacing_mm, scan
        ),
        "chain skimage": lambda: skimage_chain(images[0], angle, spacing_mm),
    }
    seconds = best(calls, options.repeats)
    print(f"{size} x {size}, {size} views, batch {batch}: seconds a slice")
    for name in ("radon", "fbp", "chain"):
        ours, theirs = seconds[name] / batch, seconds[f"{name} skimage"]
        print(
            f"{name:6s} ours {ours:.4f}  scikit-image {theirs:.3f}  "
            f"{theirs / ours:.0f} x"
        )
    expected = skimage_sinogram(images[0], angle)
    error = np.linalg.norm(sinograms[0] - expected) / np.linalg.norm(expected)
    print(f"radon against scikit-image, relative L2: {100 * error:.2f} %")
    print("size   radon   fbp     seconds a slice")
    for side in (128, 256, 512, 1024):
        grown = head(side, min(batch, 4))
        turns = projection.uniform_angles(side)
        views = projection.radon(grown, turns)
        found = best(
            {
                "radon": lambda g=grown, t=turns: projection.radon(g, t),
                "fbp": lambda v=views, t=turns: projection.filtered_backprojection(
                    v, t, "hann"
                ),
            },
            2,
        )
        print(
            f"{side:5d}  {found['radon'] / len(grown):.4f}  "
            f"{found['fbp'] / len(grown):.4f}"
        )


if __name__ == "__main__":
    main()

"""Times the projector and the low-dose chain against scikit-image and ASTRA.

    python -m tests.benchmarks.projection [--size 512] [--batch 8] [--repeats 3]
        [--ct FILE.npy] [--smoke]

Prints seconds a slice (the candidates take turns; each time is the best of the repeats)
and their ratios, the difference of the sinograms, the error of the adjoint, peak
memory, and the time by image size and by batch. ASTRA takes part if it is installed
(requirements-oracles.txt). FILE.npy is an (n, h, w) array of HU; sinograms are then
compared on it too.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from ipv2.kernels import fan_beam, photon_noise, projection
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.oracles.projection import skimage_backprojection, skimage_sinogram

MU_WATER = 0.0192
# Least ratio of the reference's time to ours.
TARGET = {
    ("radon", "scikit-image"): 60,
    ("fbp", "scikit-image"): 15,
    ("chain", "scikit-image"): 30,
    ("radon", "astra linear"): 10,
    ("fbp", "astra linear"): 10,
}


def head(size: int, batch: int) -> np.ndarray:
    """Returns (batch, size, size), 1 for water, 0 outside the circle."""
    image = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    image = image * projection.inscribed_circle((size, size))
    return np.stack([image] * batch).astype(np.float32)


def best(calls: Mapping[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """Returns the best seconds of each call; they take turns after a warm-up."""
    seconds = dict.fromkeys(calls, np.inf)
    for number in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number:
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def skimage_chain(image: np.ndarray, angle: np.ndarray, spacing_mm: float) -> object:
    """Returns the physical model's noise of a slice, by scikit-image and NumPy."""
    rng = np.random.default_rng(0)
    line = skimage_sinogram(image, angle) * MU_WATER * spacing_mm
    mean = 0.02 * 1.5e5 * np.exp(-line)
    seen = rng.poisson(mean) + rng.normal(0, 10**0.5, mean.shape)
    error = -np.log(np.maximum(seen, 1) / mean)
    return skimage_backprojection(error, angle, "hann")


def our_calls(images: np.ndarray) -> dict[str, Callable[[], object]]:
    """Returns calls for radon, fbp and chain of a batch, with as many views as rows."""
    size = images.shape[-1]
    angle = projection.uniform_angles(size)
    sinograms = projection.radon(images, angle)
    image_hu = (1000 * images - 1000).astype(np.float32)
    scan = photon_noise.DoseParams(dose=0.02)
    key = jax.random.key(0)
    return {
        "radon": lambda: projection.radon(images, angle),
        "fbp": lambda: projection.filtered_backprojection(sinograms, angle, "hann"),
        "chain": lambda: photon_noise.simulate_low_dose(
            key, image_hu, 400 / size, scan
        ),
    }


def reference_calls(
    image: np.ndarray,
) -> dict[tuple[str, str], Callable[[], object]]:
    """Returns calls for one slice by (what, library)."""
    size = image.shape[0]
    angle = projection.uniform_angles(size)
    sinogram = np.asarray(projection.radon(image, angle))
    calls: dict[tuple[str, str], Callable[[], object]] = {
        ("radon", "scikit-image"): lambda: skimage_sinogram(image, angle),
        ("fbp", "scikit-image"): lambda: skimage_backprojection(
            sinogram, angle, "hann"
        ),
        ("chain", "scikit-image"): lambda: skimage_chain(image, angle, 400 / size),
    }
    try:
        from tests.oracles.astra_projection import AstraScan
    except ImportError as error:
        print(f"without ASTRA: {error}")
        return calls
    for name in ("linear", "line", "strip"):
        scan = AstraScan(size, angle, name)
        calls["radon", f"astra {name}"] = lambda s=scan: s.project(image)
        calls["fbp", f"astra {name}"] = lambda s=scan: s.reconstruct(sinogram)
    return calls


def speed(size: int, batch: int, repeats: int) -> None:
    """Prints seconds a slice of ours and of the references."""
    images = head(size, batch)
    ours, theirs = our_calls(images), reference_calls(images[0])
    seconds = best(ours | theirs, repeats)
    print(f"{size} x {size}, {size} views, batch {batch}: seconds a slice")
    for what, whom in theirs:
        mine, other = seconds[what] / batch, seconds[what, whom]
        target = TARGET.get((what, whom))
        wanted = f"  (at least {target})" if target else ""
        ratio = f"{other / mine:4.0f} x{wanted}"
        print(f"  {what:5s} ours {mine:.4f}  {whom:12s} {other:.3f}  {ratio}")


def agreement(size: int, ct: np.ndarray | None) -> None:
    """Prints the relative L2 error against scikit-image, and that of the adjoint."""
    angle = projection.uniform_angles(size)
    cases = {"Shepp-Logan": head(size, 1)[0]}
    if ct is not None:
        chosen = np.linspace(0, len(ct) - 1, 5).astype(int)
        circle = projection.inscribed_circle(ct.shape[1:])
        for i in chosen:
            cases[f"CT slice {i}"] = np.maximum(1 + ct[i] / 1000, 0) * circle
    for name, image in cases.items():
        views = projection.uniform_angles(image.shape[0])
        expected = skimage_sinogram(image, views)
        error = np.linalg.norm(projection.radon(image, views) - expected)
        print(
            f"radon against scikit-image, relative L2, {name}: "
            f"{100 * error / np.linalg.norm(expected):.2f} %  (below 0.5)"
        )
    rng = np.random.default_rng(0)
    image = rng.normal(size=(size, size)).astype(np.float32)
    source = 2 * projection.uniform_angles(size | 1)
    fan = (np.arange(size) - size // 2) / (1.5 * size)
    scan = {"source_distance_mm": 1.5 * size}
    pairs = {
        "parallel": (
            lambda x: projection.radon(x, angle),
            lambda y: projection.filtered_backprojection(y, angle, "none"),
        ),
        "fan": (
            lambda x: fan_beam.fan_beam_radon(x, source, fan, **scan),
            lambda y: fan_beam.fan_beam_backprojection(
                y, source, fan, "none", shape=(size, size), **scan
            ),
        ),
    }
    for name, (forward, back) in pairs.items():
        sinogram = np.float64(forward(image))
        # Correlated with the sinogram: products of two noises would nearly cancel.
        other = sinogram + rng.normal(0, sinogram.std(), sinogram.shape)
        left = np.vdot(sinogram, other)
        right = np.vdot(np.float64(image), np.float64(back(np.float32(other))))
        print(f"adjoint, {name}: {abs(left - right) / abs(left):.1e}  (below 1e-5)")


def growth(size: int, repeats: int) -> None:
    """Prints seconds a slice by image size and by batch."""
    print("size  batch  radon   fbp     chain   seconds a slice")
    sizes = (size // 4, size // 2, size, 2 * size)
    for size, batch in [(s, 4) for s in sizes] + [(size, b) for b in (1, 2, 8)]:
        found = best(our_calls(head(size, batch)), repeats)
        cells = "  ".join(f"{found[what] / batch:.4f}" for what in found)
        print(f"{size:4d}  {batch:5d}  {cells}")


def peak_megabytes() -> float:
    """Returns the peak memory of this process; getrusage would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory(size: int, batch: int) -> None:
    """Prints the peak memory of our calls; run it in a new process."""
    images = head(size, batch)
    before = peak_megabytes()
    for call in our_calls(images).values():
        jax.block_until_ready(call())
    print(
        f"peak memory, radon, fbp and chain, batch {batch}: {peak_megabytes():.0f} MB, "
        f"imports and images {before:.0f} MB of it  (below 2000)",
        flush=True,
    )


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ct", help="(n, h, w) HU, .npy")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    smoke = ["--size=64", "--batch=2", "--repeats=1"]
    options = parse(parser, command_line, smoke)
    if options.memory:
        memory(options.size, options.batch)
        return
    speed(options.size, options.batch, options.repeats)
    agreement(options.size, np.load(options.ct) if options.ct else None)
    # In a child, as this process holds the memory of scikit-image and ASTRA.
    subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.projection", "--memory"),
            *(f"--size={options.size}", f"--batch={options.batch}"),
        ],
        check=True,
    )
    growth(options.size, options.repeats)


if __name__ == "__main__":
    main()

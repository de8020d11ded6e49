"""Measures the noise models at full size: means, variance, texture, parity.

    python -m tests.benchmarks.low_dose_physics [--size 512] [--seeds 8]
        [--reference-seeds 20] [--smoke]

All measurements use the chest of `tests.oracles.chest`, 384 mm across, and its regions.
The reference model runs scikit-image, which takes about 3 s a slice at 512.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from ipv2.kernels import photon_noise, projection
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.kernels.reconstruction_filter import filter_response
from ipv2.kernels.reference_noise import simulate_reference_noise
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.oracles.chest import chest
from tests.oracles.photon_noise import expected_noise, reference_noise
from tests.oracles.projection import sinc_backprojection

FIELD_MM = 384.0


def noise(image: np.ndarray, spacing: float, scan: DoseParams, seeds: int):
    """Yields `seeds` images (h, w) of noise, HU; simulates four slices at a time."""
    for first in range(0, seeds, 4):
        keys = jax.random.split(jax.random.key(first), min(4, seeds - first))
        stack = np.stack([image] * len(keys))
        yield from np.asarray(simulate_low_dose(keys, stack, spacing, scan)) - stack


def means(image, regions, spacing, seeds):
    """Prints the shift of the mean by region beside the predicted one."""
    print(
        f"shift of the mean, HU, {seeds} seeds: measured +- standard error / predicted "
        "(for a parallel beam)"
    )
    for source_distance_mm in (None, 595.0):
        beam = "parallel" if source_distance_mm is None else "fan, 595 mm"
        for dose in (1.0, 0.5, 0.25, 0.1, 0.05, 0.02):
            scan = DoseParams(dose=dose, source_distance_mm=source_distance_mm)
            sample = [
                [one[mask].mean() for mask in regions.values()]
                for one in noise(image, spacing, scan, seeds)
            ]
            mean = np.mean(sample, axis=0)
            error = np.std(sample, axis=0, ddof=1) / math.sqrt(seeds)
            expected = expected_noise(image, spacing, scan)
            cells = [
                f"{name} {m:7.3f} +- {e:.3f} / {expected[mask].mean():7.3f}"
                for (name, mask), m, e in zip(regions.items(), mean, error, strict=True)
            ]
            print(f"  {beam:12s} {dose:4.2f}  " + "  ".join(cells))


def variances(image, regions, spacing, seeds):
    """Prints the variance against 1/dose - 1, without electronic noise."""
    print("variance over (1/dose - 1), relative to dose 0.5")
    for photons in (1.5e5, 1e7):
        scan = DoseParams(dose=0.5, photons=photons, electronic_variance=0.0)
        doses = (0.8, 0.5, 0.25, 0.1)
        found = {}
        for dose in doses:
            one = dataclasses.replace(scan, dose=dose)
            found[dose] = np.mean(
                [
                    [n[mask].var() for mask in regions.values()]
                    for n in noise(image, spacing, one, seeds)
                ],
                axis=0,
            )
        for dose in doses:
            ratio = found[dose] / found[0.5] / (1 / dose - 1)
            cells = [f"{name} {r:.4f}" for name, r in zip(regions, ratio, strict=True)]
            print(f"  {photons:g} photons {dose:4.2f}  " + "  ".join(cells))


def texture(size):
    """Prints the ratio of the NPS of one noise sinogram in two backprojectors."""
    print("NPS, ours over brute force, per radial bin up to 0.8 of the cut-off")
    rng = np.random.default_rng(0)
    angle = projection.uniform_angles(size)
    sinogram = rng.normal(size=(size, size)).astype(np.float32)
    geometry = photon_noise.scan_geometry((size, size), None)
    for cutoff in (0.5, 1.0, 2.0):
        response = filter_response("hann", geometry.padded, cutoff=cutoff)
        ours = projection.filtered_backprojection(
            sinogram, angle, "hann", cutoff=cutoff
        )
        theirs = sinc_backprojection(sinogram, angle, response, (size, size))
        margin = int(size * 0.15)  # the square inside the circle
        centre = slice(margin, size - margin)
        frequency, ratio = radial_ratio(
            np.asarray(ours)[centre, centre], theirs[centre, centre]
        )
        used = frequency <= 0.8 * min(cutoff, 1.0) * 0.5
        worst = np.abs(ratio[used] - 1).max()
        cells = " ".join(f"{r:.4f}" for r in ratio[used])
        print(f"  hann, cut-off {cutoff}: worst {100 * worst:.2f} %;  {cells}")


def radial_ratio(one, other, bins=32):
    """Returns frequencies (cycles a pixel) and the ratio of two radial NPS there."""
    h, w = one.shape
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
    index = np.minimum((frequency * 2 * bins).astype(int), bins).ravel()
    power = [
        np.bincount(index, (np.abs(np.fft.fft2(x - x.mean())) ** 2).ravel(), bins + 1)
        for x in (one, other)
    ]
    return (np.arange(bins) + 0.5) / (2 * bins), (power[0] / power[1])[:bins]


def parity(image, regions, seeds):
    """Prints the published model beside scikit-image, each with other seeds."""
    size = image.shape[0]
    circle = projection.inscribed_circle((size, size))
    grey = np.where(circle, (image + 1000) / 1500, 0.0)
    keys = jax.random.split(jax.random.key(2026), seeds)
    ours = [
        np.asarray(simulate_reference_noise(keys[i : i + 1], grey[None]))[0]
        for i in range(seeds)
    ]
    theirs = [reference_noise(grey, seed=1000 + seed) for seed in range(seeds)]
    print(f"reference model against scikit-image, {seeds} seeds, grey levels")
    for name, mask in regions.items():
        values = [np.stack(x)[:, mask].astype(np.float64) for x in (ours, theirs)]
        mean = [v.mean() for v in values]
        sd = [v.std(axis=1).mean() for v in values]
        error = [v.std(axis=1).std(ddof=1) / math.sqrt(seeds) for v in values]
        print(
            f"  {name:12s} mean {mean[0]:.3f} / {mean[1]:.3f} "
            f"({100 * (mean[0] / mean[1] - 1):+.2f} %)   sd {sd[0]:.3f} / {sd[1]:.3f} "
            f"({100 * (sd[0] / sd[1] - 1):+.2f} %, +- "
            f"{100 * math.hypot(*error) / sd[1]:.2f} %)"
        )


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--reference-seeds", type=int, default=20)
    smoke = ["--size=64", "--seeds=2", "--reference-seeds=2"]
    options = parse(parser, command_line, smoke)
    spacing = FIELD_MM / options.size
    image, regions = chest(options.size, spacing)
    means(image, regions, spacing, options.seeds)
    variances(image, regions, spacing, options.seeds)
    texture(options.size)
    parity(image, regions, options.reference_seeds)


if __name__ == "__main__":
    main()

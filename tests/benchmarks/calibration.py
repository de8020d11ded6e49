"""Measures how well a calibration recovers known scanners and foreign scanners.

    python -m tests.benchmarks.calibration [--only recovery ...] [--every 6]
        [--size 512] [--scans 24] [--first 0]
        [--ct VOLUME.npy --pixel 0.84] [--smoke]

recovery  scans textured phantoms with our own model; prints the true parameters and
          those recovered from one image and from a pair
foreign   scans them with other models (fan beam, more views, other filters, bowtie,
          tube current that follows the angle, thick slices, an edge-enhancing kernel);
          calibrates on the full dose, simulates a quarter dose and compares it with
          the other model's: noise by region, radial NPS, histogram
coverage  one scan in a soft and in a sharp kernel, many times: how often the photons
          lie within the stated interval, and how often both kernels agree
ct        with --ct: prints the parameters of a real volume, then scans a smoothed copy
          of it with known parameters and recovers these

`--every N` takes each Nth scanner of a part.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, stats

from ipv2 import calibration, phantom
from ipv2.kernels import projection
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.kernels.reconstruction_filter import filter_response
from ipv2.measures import noise_analysis
from ipv2.purification import anatomy
from tests.benchmarks.shared.arguments import create_parser, parse

MU_WATER = 0.0192
PARTS = ("recovery", "foreign", "coverage", "ct")


def thorax(
    seed: int, count: int, field_mm: float, size: int, power: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns slices of a phantom with soft-tissue texture, HU, and their lungs.

    The texture's power falls as f^-power.
    """
    patient = phantom.create_patient(seed)
    breath, _ = phantom.create_breaths(seed)
    place = phantom.slice_positions(patient, 2 * count)[:count]
    slices = phantom.render(patient, breath, place, size=size, field_mm=field_mm)
    hu = np.asarray(slices.hu)
    rng = np.random.default_rng(seed)
    # Organs look like noise of 4 HU between 0.2 and 0.5 cycles/mm.
    row = np.fft.fftfreq(size)[:, None]
    column = np.fft.rfftfreq(size)[None]
    radius = np.hypot(row, column)
    shape = np.where(radius > 0.01, np.maximum(radius, 0.01) ** (-power / 2), 0.0)
    texture = np.fft.irfft2(
        np.fft.rfft2(rng.normal(size=hu.shape)) * shape, s=(size, size)
    )
    texture *= 4 / texture.std()
    tissue = (hu > -150) & (hu < 150)
    return (hu + texture * tissue).astype(np.float32), np.asarray(slices.lung)


def scanned(hu: np.ndarray, pixel: float, seed: int, **scan: float) -> np.ndarray:
    """Returns a noise-free image as our own model scans it, in whole HU."""
    params = DoseParams(**{"input_dose": math.inf, **scan})  # pyrefly: ignore
    noisy = simulate_low_dose(jax.random.key(seed), hu, pixel, params)
    return np.round(np.asarray(noisy))


def recovery(every: int, size: int) -> None:
    """Prints the true and the recovered parameters of each `every`th scanner."""
    print("true: N0 cutoff q | one image: N0 (se) cutoff (se) | pair 25 %: N0 cutoff q")
    turn = 0
    for photons in (3e4, 1.5e5, 6e5):
        for cutoff in (0.5, 0.8, 1.0, 2.0):
            for electronic in (0.0, 10.0, 100.0):
                turn += 1
                if turn % every:
                    continue
                field = (310.0, 380.0, 450.0)[turn % 3]
                hu, _ = thorax(turn % 4, 6, field, size)
                pixel = field / size
                scan = {
                    "photons": photons,
                    "cutoff": cutoff,
                    "electronic_variance": electronic,
                }
                normal = scanned(hu, pixel, turn, dose=1.0, **scan)
                low = scanned(hu, pixel, turn + 100, dose=0.25, **scan)
                line = (
                    f"{photons:8.2g} {cutoff:4.1f} {electronic:4.0f} px {pixel:.2f} |"
                )
                one = calibration.calibrate(normal, pixel)
                both = calibration.calibrate((low, normal), pixel, dose=0.25)
                for c in (one, both):
                    error = c.electronic_error
                    line += (
                        f" {c.photons / photons:.3f} ({c.photons_error:.3f})"
                        f" {c.filter_name}{'*' if c.window else ''}"
                        f" {c.cutoff / cutoff:.3f}"
                        f" ({c.cutoff_error or math.nan:.3f})"
                        f" q {c.electronic_variance:.3g}"
                        f" ({math.nan if error is None else error:.2g})"
                        f" nps {100 * c.texture_error:.0f}% {c.relation} |"
                    )
                print(line, flush=True)


def line_integrals(hu: np.ndarray, pixel: float, views: int) -> np.ndarray:
    """Returns line integrals, at least 0."""
    mu = MU_WATER * np.maximum(1 + hu / 1000, 0)
    angle = projection.uniform_angles(views)
    return np.maximum(np.asarray(projection.radon(mu, angle, spacing_mm=pixel)), 0)


def currents(hu: np.ndarray, pixel: float, along_z: float) -> np.ndarray:
    """Returns a tube current for each slice that follows its attenuation."""
    line = line_integrals(hu, pixel, 32)
    d = line.shape[-1]
    middle = line[..., d // 4 : 3 * d // 4].mean(axis=(1, 2))
    return np.exp(along_z * (middle - middle.mean()))


def foreign_noise(
    hu: np.ndarray,
    pixel: float,
    seed: int,
    dose: float,
    *,
    photons: float = 3e5,
    electronic: float = 20.0,
    views: int = 1160,
    filter_name: str = "hann",
    cutoff: float = 1.0,
    interpolated: bool = False,
    enhance: float = 0.0,
    bowtie: float = 0.0,
    modulation: float = 0.0,
    along_z: float = 0.0,
    slices: int = 1,
    blur_px: float = 0.0,
    decimate: int = 1,
) -> np.ndarray:
    """Returns the noise of a parallel beam that another model simulates, HU."""
    if decimate > 1:  # the kernel has more than the image's pixels can show
        fine = np.kron(hu, np.ones((1, decimate, decimate), np.float32))
        noise = foreign_noise(
            fine,
            pixel / decimate,
            seed,
            dose,
            # As many photons per mm of the detector.
            photons=photons / decimate,
            electronic=electronic / decimate,
            views=views,
            filter_name=filter_name,
            cutoff=cutoff / decimate,
            enhance=enhance / decimate**2,
            bowtie=bowtie,
            along_z=along_z,
        )
        return noise[:, ::decimate, ::decimate]
    rng = np.random.default_rng(seed)
    angle = projection.uniform_angles(views)
    line = line_integrals(hu, pixel, views)
    d = line.shape[-1]
    share = (np.arange(d) - d // 2) / (d // 2)
    counts = np.full(line.shape, photons * dose * 512 / views)
    # A bowtie lets through less at the sides, where the patient is thin.
    counts *= np.exp(-bowtie * share**2)
    # Tube current that follows the attenuation of each view, and of each slice.
    middle = line[..., d // 4 : 3 * d // 4].mean(axis=-1, keepdims=True)
    slice_mean = middle.mean(axis=1, keepdims=True)
    counts *= np.exp(modulation * (middle - slice_mean))
    counts *= currents(hu, pixel, along_z)[:, None, None]
    mean = counts * np.exp(-line)
    total = np.zeros_like(line)
    for _ in range(slices):
        thin = mean / slices
        seen = rng.poisson(thin) + rng.normal(0, electronic**0.5, thin.shape)
        total += -np.log(np.maximum(seen, 1) / thin) / slices
    geometry = projection.create_geometry(hu.shape[-2:], angle)
    response = filter_response(
        filter_name, geometry.padded, cutoff=cutoff, linear_interpolation=interpolated
    )
    frequency = np.arange(response.size) / geometry.padded
    response = response * (1 + enhance * (2 * frequency) ** 2)
    noise = projection.backproject(
        geometry, jnp.asarray(total, jnp.float32), jnp.asarray(response, jnp.float32)
    )
    noise = np.asarray(noise) * (math.pi / views / pixel * 1000 / MU_WATER)
    if blur_px:
        noise = ndimage.gaussian_filter(noise, (0, blur_px, blur_px))
    return noise


def fan_noise(hu: np.ndarray, pixel: float, seed: int, dose: float) -> np.ndarray:
    """Returns the noise of a fan beam whose source is 570 mm away, HU."""
    params = DoseParams(
        dose=dose, input_dose=math.inf, source_distance_mm=570.0, views=985
    )
    return np.asarray(simulate_low_dose(jax.random.key(seed), hu, pixel, params)) - hu


FOREIGN: dict[str, dict[str, object]] = {
    "same model": {"views": 512},
    "1160 views": {},
    "cosine, interpolated": {"filter_name": "cosine", "interpolated": True},
    "hamming": {"filter_name": "hamming"},
    "shepp-logan": {"filter_name": "shepp-logan"},
    "soft 0.5 + blur 1 px": {"cutoff": 0.6, "blur_px": 1.0},
    "edge enhancing": {"cutoff": 1.2, "enhance": 4.0},
    "bowtie 1.5": {"bowtie": 1.5},
    "bowtie 3": {"bowtie": 3.0},
    "current by angle 0.5": {"modulation": 0.5},
    "current by angle 1": {"modulation": 1.0},
    "current by slice 1": {"along_z": 1.0},
    "3 x 1 mm averaged": {"slices": 3, "photons": 2e5},
    "all of it": {
        "bowtie": 2.0,
        "modulation": 0.7,
        "along_z": 0.7,
        "filter_name": "cosine",
        "interpolated": True,
        "slices": 3,
    },
}


def regions(hu: np.ndarray, lung: np.ndarray, pixel: float) -> dict[str, np.ndarray]:
    """Returns masks of the lungs and of soft tissue at three depths below the skin."""
    outside = np.asarray(anatomy.segment(jnp.asarray(hu)).outside)
    body = ~outside
    depth = (
        np.stack([np.asarray(ndimage.distance_transform_edt(m)) for m in body]) * pixel
    )
    tissue = ndimage.uniform_filter(hu, (0, 7, 7))
    soft = body & (tissue > -150) & (tissue < 150)
    return {
        "lung": ndimage.binary_erosion(lung, np.ones((1, 5, 5))),
        "rim": soft & (depth < 30),
        "middle": soft & (depth >= 30) & (depth < 70),
        "core": soft & (depth >= 70),
    }


def sd_by_region(noise: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the local standard deviation, HU, as root mean square over slices."""
    found = noise_analysis.noise_sd_by_region(
        jnp.asarray(noise), {k: jnp.asarray(m) for k, m in masks.items()}
    )
    return {k: float(np.sqrt(np.nanmean(np.square(v)))) for k, v in found.items()}


def nps_misfit(ours: np.ndarray, theirs: np.ndarray, box: tuple[slice, slice]) -> tuple:
    """Compares two radial NPS in a box.

    Returns:
      frequencies, the ratio at each, and the misfit weighted by power.
    """
    curves = []
    for noise in (ours, theirs):
        patches = [
            noise[:, r : r + 64, c : c + 64]
            for r in range(box[0].start, box[0].stop - 63, 32)
            for c in range(box[1].start, box[1].stop - 63, 32)
        ]
        spectrum = noise_analysis.noise_power_spectrum(
            jnp.asarray(np.concatenate(patches)), 1.0, taper=True
        )
        frequency, curve = noise_analysis.radial_average(spectrum, 1.0)
        curves.append(np.asarray(curve))
    use = frequency > 0.04
    ratio = curves[0] / np.maximum(curves[1], 1e-6 * curves[1].max())
    weight = (curves[1] * frequency) * use
    misfit = math.sqrt(np.average((ratio - 1) ** 2, weights=weight))
    return frequency, ratio, misfit


def middle_box(size: int) -> tuple[slice, slice]:
    """Returns the middle three eighths of an image."""
    side = slice(5 * size // 16, 11 * size // 16)
    return side, side


def histogram_distance(ours: np.ndarray, theirs: np.ndarray, mask: np.ndarray) -> float:
    """Returns the Kolmogorov-Smirnov distance of HU in a region."""
    return float(stats.ks_2samp(ours[mask][::7], theirs[mask][::7]).statistic)


def against_foreign(every: int, size: int) -> None:
    """Prints how far the quarter dose simulated for a foreign scanner is off."""
    field = 400.0
    pixel = field / size
    hu, lung = thorax(1, 6, field, size)
    masks = regions(hu, lung, pixel)
    makers: dict[str, Callable[[int, float], np.ndarray]] = {
        name: (lambda s, d, o=options: foreign_noise(hu, pixel, s, d, **o))  # pyrefly: ignore
        for name, options in FOREIGN.items()
    }
    makers["fan beam 570 mm"] = lambda s, d: fan_noise(hu, pixel, s, d)
    print(
        "quarter dose, ours / theirs: total noise sd by region, NPS misfit (middle of "
        "the image), KS distance of HU histograms"
    )
    for number, (name, make) in enumerate(makers.items()):
        if number % every:
            continue
        normal = np.round(hu + make(number, 1.0))
        theirs = np.round(hu + make(number + 50, 0.25))
        start = time.perf_counter()
        found = calibration.calibrate(normal, pixel)
        seconds = time.perf_counter() - start
        key = jax.random.key(7)
        ours = simulate_low_dose(key, normal, pixel, found.dose_params(0.25))
        ours = np.round(np.asarray(ours))
        a, b = (sd_by_region(image - hu, masks) for image in (ours, theirs))
        full = sd_by_region(normal - hu, masks)
        _, _, misfit = nps_misfit(ours - hu, theirs - hu, middle_box(size))
        soft = masks["middle"] | masks["core"]
        ks = [histogram_distance(ours, theirs, m) for m in (masks["lung"], soft)]
        print(
            f"{name:22s} "
            + " ".join(f"{k} {a[k] / b[k]:.3f} ({b[k]:.0f} HU)" for k in masks)
            + f" | NPS {100 * misfit:.0f} % | KS {ks[0]:.3f} {ks[1]:.3f} | "
            f"N0 {found.photons:.3g} {found.filter_name}{'*' if found.window else ''}"
            f" {found.cutoff:.2f} spread {100 * found.level_spread:.0f} % nps "
            f"{100 * found.texture_error:.0f} % full sd {full['core']:.0f} HU, "
            f"{seconds:.0f} s",
            flush=True,
        )


SOFT: tuple[dict[str, Any], ...] = (
    {"cutoff": 0.45},
    {"cutoff": 0.7},
    {"filter_name": "cosine", "cutoff": 0.6},
    {"cutoff": 0.6, "blur_px": 0.7},
)
SHARP: tuple[dict[str, Any], ...] = (
    {"cutoff": 1.2, "enhance": 1.5},
    {"cutoff": 2.0},
    {"cutoff": 0.9, "enhance": 4.0},
    {"filter_name": "shepp-logan"},
    {"cutoff": 1.5, "decimate": 2},
    {"cutoff": 1.2, "enhance": 1.5, "decimate": 2},
)


def coverage(scans: range, size: int) -> None:
    """Prints how often the stated interval of the photons holds the true value."""
    print("scan kernel mode: found / true photons, stated error, z (their quotient)")
    found: dict[str, list[tuple[float, float]]] = {"one": [], "pair": []}
    agree: dict[str, list[float]] = {"one": [], "pair": []}
    for number in scans:
        rng = np.random.default_rng(number)
        kernels = (SOFT[number % len(SOFT)], SHARP[number % len(SHARP)])
        field = rng.uniform(330, 420)
        hu, _ = thorax(number % 5, 6, field, size, rng.uniform(2.5, 3.5))
        pixel = field / size
        scan: dict[str, Any] = {
            "photons": math.exp(rng.uniform(math.log(1.5e5), math.log(1.2e6))),
            "electronic": rng.uniform(0, 40),
            "views": 512,
            "spread": (1.0, 2.0, 3.0)[number % 3],
            "bowtie": (0.0, 1.0, 2.0)[number // 2 % 3],
        }
        spread = scan.pop("spread")  # of the current: the largest over the smallest
        current = currents(hu, pixel, 1.0)
        exponent = math.log(spread) / math.log(current.max() / current.min())
        scan["along_z"] = exponent
        current = current**exponent
        # Half of the scans state their tube current.
        stated = current / current.mean() if number % 2 else None
        true = scan["photons"] * current.mean()
        results: dict[str, list[tuple[float, float]]] = {"one": [], "pair": []}
        for kernel in kernels:
            normal, low = (
                np.round(hu + foreign_noise(hu, pixel, seed, dose, **scan, **kernel))
                for seed, dose in ((2 * number, 1.0), (2 * number + 1, 0.25))
            )
            for mode, images in (("one", normal), ("pair", (low, normal))):
                one = calibration.calibrate(
                    images,
                    pixel,
                    dose=0.25 if mode == "pair" else None,
                    relative_current=stated,
                )
                ratio = math.log(one.photons / true)
                results[mode].append((ratio, one.photons_error))
                print(
                    f"{number:3d} {mode:4s} {kernel} current 1 to {spread:g}"
                    f"{' stated' if stated is not None else ''} bowtie "
                    f"{scan['bowtie']:g}: {math.exp(ratio):.3f} +- "
                    f"{one.photons_error:.3f}, z {ratio / one.photons_error:.1f}, "
                    f"{one.filter_name}{'*' if one.window else ''} {one.cutoff:.2f} "
                    f"nps {100 * one.texture_error:.0f} % {one.relation} bowtie "
                    f"{one.bowtie_mm:.0f}",
                    flush=True,
                )
        for mode, pair in results.items():
            found[mode] += pair
            (a, s), (b, t) = pair
            agree[mode].append((a - b) / math.hypot(s, t))
    for mode, pairs in found.items():
        ratio, error = np.asarray(pairs).T
        z = np.abs(ratio / error)
        both = np.abs(agree[mode])
        print(
            f"{mode}: n {len(z)}, true photons within 1.96 stated errors in "
            f"{100 * np.mean(z < 1.96):.0f} %, within one in {100 * np.mean(z < 1):.0f}"
            f" %; median |error| {100 * np.median(np.abs(ratio)):.1f} %, median stated "
            f"{100 * np.median(error):.1f} %; two kernels agree within 1.96 of their "
            f"errors in {100 * np.mean(both < 1.96):.0f} % of {len(both)} scans"
        )


def closed_loop(volume: np.ndarray, pixel: float, every: int) -> None:
    """Calibrates a real volume, then recovers known scanners of it from pairs."""
    start = time.perf_counter()
    own = calibration.calibrate(volume, pixel)
    print(f"the volume itself, {time.perf_counter() - start:.0f} s:")
    print("  " + "\n  ".join(own.describe()))
    chosen = np.unique(np.linspace(0, len(volume) - 1, 12).round().astype(int))
    # Smoothed, as its own noise would be that of a second scanner.
    hu = ndimage.gaussian_filter(volume[chosen], (0, 2, 2)).astype(np.float32)
    masks = regions(hu, np.asarray(anatomy.segment(jnp.asarray(hu)).lung), pixel)
    for cutoff, photons in ((0.8, 1e5), (2.0, 6e5))[::every]:
        for dose in (0.25, 0.1)[::every]:
            scan = {"photons": photons, "cutoff": cutoff, "electronic_variance": 40.0}
            normal = scanned(hu, pixel, 1, dose=1.0, **scan)
            true = DoseParams(dose=dose, **scan)  # pyrefly: ignore
            low = simulate_low_dose(jax.random.key(2), normal, pixel, true)
            low = np.round(np.asarray(low))
            found = calibration.calibrate((low, normal), pixel, dose=dose)
            again = simulate_low_dose(
                jax.random.key(3), normal, pixel, found.dose_params(dose)
            )
            again = np.asarray(again)
            a, b = (sd_by_region(image - normal, masks) for image in (again, low))
            box = middle_box(hu.shape[-1])
            _, _, misfit = nps_misfit(again - normal, low - normal, box)
            ks = [histogram_distance(again, low, m) for m in masks.values()]
            print(
                f"true {photons:g} {cutoff} at {dose}: found {found.photons:.4g}",
                end="",
            )
            print(
                f" {found.filter_name}{'*' if found.window else ''} {found.cutoff:.3f}"
                f" q {found.electronic_variance:.3g} {found.relation} | "
                + " ".join(f"{k} {a[k] / b[k]:.3f} ({b[k]:.0f})" for k in masks)
                + f" | NPS {100 * misfit:.0f} % | KS "
                + " ".join(f"{value:.3f}" for value in ks),
                flush=True,
            )


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--scans", type=int, default=24, help="of the coverage")
    parser.add_argument("--first", type=int, default=0, help="scan of the coverage")
    parser.add_argument("--every", type=int, default=1, help="each Nth scanner")
    parser.add_argument("--size", type=int, default=512, help="pixels of the phantoms")
    parser.add_argument("--ct", help="(z, h, w) HU, .npy")
    parser.add_argument("--pixel", type=float, default=0.841796875, help="mm")
    with tempfile.TemporaryDirectory() as folder:
        options = parse(parser, command_line, lambda: smoke(Path(folder)))
        if "recovery" in options.only:
            recovery(options.every, options.size)
        if "foreign" in options.only:
            against_foreign(options.every, options.size)
        if "coverage" in options.only:
            scans = range(options.first, options.first + options.scans)
            coverage(scans, options.size)
        if options.ct and "ct" in options.only:
            closed_loop(np.load(options.ct), options.pixel, options.every)


def smoke(folder: Path) -> list[str]:
    """Writes a small volume; returns the arguments of a run with it."""
    size, field = 256, 380.0
    hu, _ = thorax(0, 6, field, size)
    volume, pixel = folder / "volume.npy", field / size
    np.save(volume, scanned(hu, pixel, 0, dose=1.0, photons=1.5e5, cutoff=1.0))
    return [
        f"--ct={volume}",
        f"--pixel={pixel}",
        f"--size={size}",
        "--every=36",
        "--only",
        "foreign",
        "ct",
    ]


if __name__ == "__main__":
    main()

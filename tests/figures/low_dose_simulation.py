"""The two figures of `ipv2/kernels/README.md`, and the numbers under them.

    python -m tests.figures.low_dose_simulation [--cache runs/datasets]

Writes into `--output`, and prints what they show:
`low_dose.png`, a slice of the sample CT (fetched if need be) at four doses, the noise
model calibrated on that CT itself; `noise_power.png`, noise of a water disc and theory.
"""

import argparse
import io
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from common.dataset import load_split
from common.text_table import format_table
from ipv2.calibration import Calibration, calibrate
from ipv2.datasets.sample_ct import SampleCt
from ipv2.kernels.photon_noise import DoseParams, scan_geometry, simulate_low_dose
from ipv2.kernels.reconstruction_filter import filter_response
from ipv2.measures.noise_analysis import (
    hann_taper,
    noise_power_spectrum,
    radial_average,
)
from ipv2.purification.purify import regions

DOSES = (0.25, 0.1, 0.02)
SLICE = 34
# Rows and columns that are shown, pixel for pixel: mediastinum, spine, left lung.
ROWS, COLUMNS = slice(150, 358), slice(240, 448)
LUNG, SOFT_TISSUE, DIFFERENCE = (-600.0, 1500.0), (40.0, 400.0), (0.0, 800.0)
GREY_LEVELS = 32
CAPTION = """real CT: TCIA Lung-PET-CT-Dx,
patient A0001, CC BY 4.0

simulated: kernel and photons
calibrated on that scan

difference: simulated
less real, HU"""

KERNELS = (("hann", 0.5), ("hann", 1.0), ("cosine", 1.0), ("hann", 4.0))
DISC_MM, PIXEL_MM, SIZE, PATCH, DISCS = 110.0, 0.7, 512, 96, 256


def sample_slices(cache: Path) -> tuple[np.ndarray, float]:
    """(64, 512, 512) HU of the sample CT, and its pixel size in mm."""
    records = load_split(SampleCt(data_dir=cache), "train")
    stack = [records[i] for i in range(len(records))]
    hu = np.stack([record["hu"] for record in stack]).astype(np.float32)
    return hu, float(stack[0]["spacing_mm"][1])


def simulated(
    normal: np.ndarray, spacing_mm: float, scanner: Calibration
) -> dict[float, np.ndarray]:
    """The slice at each of DOSES, not clipped."""
    return {
        dose: np.asarray(
            simulate_low_dose(
                jax.random.key(index), normal, spacing_mm, scanner.dose_params(dose)
            )
        )
        for index, dose in enumerate(DOSES)
    }


def region_table(normal: np.ndarray, low: dict[float, np.ndarray]) -> str:
    """Sd and mean of the added noise by region, and what clipping at -1024 HU does."""
    found = regions(jnp.asarray(normal))._asdict()
    rows, scale = [], {}
    for dose, image in low.items():
        cells = []
        for name in ("lung", "body"):
            region = np.asarray(found[name])
            added = (image - normal)[region]
            share = float(added.var()) / (1 / dose - 1)
            scale.setdefault(name, share)
            cells += [float(added.std()), float(added.mean()), share / scale[name]]
            cells.append(float((np.maximum(image, -1024) - normal)[region].mean()))
        rows.append([f"{100 * dose:g} %", *cells])
    columns = [
        f"{name}\n{what}"
        for name in ("lung", "body")
        for what in ("sd", "mean", "law", "mean, stored")
    ]
    title = "added noise, HU; law: variance / (1 / dose - 1) over that at 25 %"
    digits = [0, *(1, 2, 3, 2) * 2]
    return format_table(["dose", *columns], rows, digits=digits, title=title)


def dose_figure(normal: np.ndarray, low: dict[float, np.ndarray]) -> bytes:
    """PNG: columns are doses; rows lung, soft tissue, difference from normal dose."""
    size, margin, left, top = ROWS.stop - ROWS.start, 3, 22, 18
    images = {"normal dose (real)": normal} | {
        f"{100 * dose:g} % (simulated)": image for dose, image in low.items()
    }
    rows = (
        ("lung, -600/1500", LUNG, 0.0),
        ("soft tissue, 40/400", SOFT_TISSUE, 0.0),
        ("difference, 0/800", DIFFERENCE, normal),
    )
    width = left + len(images) * (size + margin)
    height = top + len(rows) * (size + margin)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    for column, (name, image) in enumerate(images.items()):
        x = left + column * (size + margin)
        figure.text(
            (x + size / 2) / width, 1 - 3 / height, name, ha="center", va="top", size=8
        )
        for row, (label, (centre, span), less) in enumerate(rows):
            y = height - top - (row + 1) * (size + margin) + margin
            if not column:
                figure.text(
                    2 / width, (y + size / 2) / height, label, rotation=90,
                    va="center", size=8,
                )  # fmt: skip
                if row == 2:
                    middle = ((x + size / 2) / width, (y + size / 2) / height)
                    figure.text(*middle, CAPTION, ha="center", va="center", size=8)
                    continue
            shown = (image - less)[ROWS, COLUMNS]
            # One image pixel is one pixel of the file: noise is not resampled.
            axes = figure.add_axes((x / width, y / height, size / width, size / height))
            axes.imshow(
                shown,
                cmap="gray",
                vmin=centre - span / 2,
                vmax=centre + span / 2,
                interpolation="nearest",
            )
            axes.set_axis_off()
    return few_greys(png_of(figure))


def disc_noise(filter_name: str, cutoff: float) -> np.ndarray:
    """(DISCS, PATCH, PATCH) HU: noise of a quarter dose, middle of a water disc."""
    place = (np.arange(SIZE) - SIZE // 2) * PIXEL_MM
    disc = np.where(np.hypot(*np.meshgrid(place, place)) < DISC_MM, 0.0, -1000.0)
    disc = disc.astype(np.float32)
    scan = DoseParams(dose=0.25, filter_name=filter_name, cutoff=cutoff)
    middle = slice(SIZE // 2 - PATCH // 2, SIZE // 2 + PATCH // 2)
    batch = np.stack([disc] * 8)
    return np.concatenate(
        [
            np.asarray(
                simulate_low_dose(jax.random.key(number), batch, PIXEL_MM, scan) - batch
            )[:, middle, middle]
            for number in range(DISCS // 8)
        ]
    )


def disc_theory(filter_name: str, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """(cycles/mm, HU^2 mm^2) of the NPS amid the disc, from the model alone.

    With white noise of variance v in each bin of n views, d mm apart, and a filter of
    response H: NPS(f) = pi v d H(f)^2 / (n f), times (1000 / mu)^2.
    """
    scan = DoseParams(dose=0.25, filter_name=filter_name, cutoff=cutoff)
    ratio, mu = scan.dose / scan.input_dose, scan.mu_water_per_mm
    place = (np.arange(PATCH) - PATCH // 2) * PIXEL_MM
    counts = scan.photons * np.exp(-2 * mu * np.sqrt(DISC_MM**2 - place**2))
    variance = (1 - ratio) / (ratio * counts)
    variance += scan.electronic_variance * (1 / ratio**2 - 1) / counts**2
    # As the taper weighs the patch, along the direction of the bins.
    variance = np.mean(variance * np.mean(hann_taper((PATCH, PATCH)) ** 2, axis=0))
    geometry = scan_geometry((SIZE, SIZE), None)
    response = filter_response(filter_name, geometry.padded, cutoff=cutoff)[1:]
    frequency = np.arange(1, len(response) + 1) / geometry.padded / PIXEL_MM
    power = (
        (math.pi * PIXEL_MM / geometry.views)
        * variance
        * (response / PIXEL_MM) ** 2
        / frequency
    )
    return frequency, power * (1000 / mu) ** 2


def noise_power_figure() -> tuple[bytes, str]:
    """PNG of simulated (points) and predicted NPS (lines); a table of their gaps."""
    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    rows = []
    for filter_name, cutoff in KERNELS:
        noise = jnp.asarray(disc_noise(filter_name, cutoff))
        # Without a taper the patches' borders leak into the weak high frequencies.
        spectrum = noise_power_spectrum(noise, PIXEL_MM, trend="mean", taper=True)
        frequency, measured = radial_average(spectrum, PIXEL_MM)
        at, power = disc_theory(filter_name, cutoff)
        predicted = np.interp(frequency, at, power)
        name = f"{filter_name}, cut-off {cutoff:g}"
        (line,) = axes.plot(at, power, linewidth=1)
        axes.plot(frequency[1:], measured[1:], ".", color=line.get_color(), label=name)
        end = 0.8 * min(cutoff, 1.0) / (2 * PIXEL_MM)
        # The first rings hold few frequencies, and what the trend took.
        read = (np.arange(len(frequency)) >= 3) & (frequency <= end)
        gap = np.abs(np.asarray(measured)[read] / predicted[read] - 1)
        rows.append([name, 100 * float(gap.mean()), 100 * float(gap.max())])
    axes.set(
        xlabel="cycles / mm",
        ylabel="NPS, HU² mm²",
        xlim=(0, 0.5 / PIXEL_MM),
        ylim=(0, None),
    )
    axes.legend(title="points: simulated, lines: theory", fontsize=8, title_fontsize=8)
    table = format_table(
        ["kernel", "mean", "largest"],
        rows,
        digits=1,
        title="|simulated / theory - 1| by ring up to 0.8 of the cut-off, %",
    )
    return png_of(figure), table


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def few_greys(png: bytes) -> bytes:
    """The picture in GREY_LEVELS, which noise cannot tell from 256: half the size."""
    grey = np.asarray(Image.open(io.BytesIO(png)).convert("L"), np.float64)
    level = np.rint(grey / 255 * (GREY_LEVELS - 1)).astype(np.uint8)
    image = Image.fromarray(level, "P")
    shade = np.rint(np.linspace(0, 255, GREY_LEVELS)).astype(int)
    image.putpalette(np.repeat(shade, 3).tolist())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, bits=5)
    return buffer.getvalue()


def main() -> None:
    """Writes both figures and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("ipv2/kernels"))
    parser.add_argument("--cache", type=Path, default=Path("runs/datasets"))
    options = parser.parse_args()
    hu, spacing_mm = sample_slices(options.cache)
    scanner = calibrate(hu, spacing_mm)
    print("\n".join(scanner.describe()))
    low = simulated(hu[SLICE], spacing_mm, scanner)
    print(region_table(hu[SLICE], low))
    (options.output / "low_dose.png").write_bytes(dose_figure(hu[SLICE], low))
    png, table = noise_power_figure()
    print(table)
    (options.output / "noise_power.png").write_bytes(png)


if __name__ == "__main__":
    main()

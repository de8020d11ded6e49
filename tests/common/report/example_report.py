"""A report as a run writes it: a smooth phantom of a chest, with noise."""

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from common.report.parts import (
    Column,
    Estimate,
    Measure,
    Plot,
    Report,
    Section,
    Table,
    Text,
    ViewedSlice,
    Viewer,
    to_stored_hu,
)
from common.report.plots import COLOURS, WIDTH, figure_svg

METHODS = ("input", "network", "BM3D", "label", "truth")
_NOISE_HU = {"input": 90.0, "network": 18.0, "BM3D": 26.0, "label": 30.0, "truth": 0.0}
_BLUR_PIXELS = {"input": 0.6, "network": 1.6, "BM3D": 1.2, "label": 0.6, "truth": 0.0}


def chest(side, shift=0.0):
    """Returns HU of a round body with lungs, vessels, a heart, a spine and ribs."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]

    def ellipse(u, v, a, b):
        return ((x - u) / a) ** 2 + ((y - v) / b) ** 2 < 1

    image = np.full((side, side), -1000.0)
    image[ellipse(0, 0.02, 0.92, 0.68)] = -100  # fat
    image[ellipse(0, 0.02, 0.87, 0.63)] = 50  # muscle
    for sign in (-1, 1):
        for angle in np.linspace(-1.2, 1.2, 7) + shift / 5:
            ribs = sign * 0.82 * np.cos(angle), 0.02 + 0.57 * np.sin(angle)
            image[ellipse(*ribs, 0.045, 0.025)] = 600
        lung = ellipse(sign * 0.42, -0.02, 0.33, 0.46)
        image[lung] = -850
        rng = np.random.default_rng(4 + sign)
        for _ in range(45):
            u, v = (
                sign * 0.42 + rng.normal(0, 0.13),
                rng.normal(-0.02 + shift / 3, 0.19),
            )
            size = rng.uniform(0.006, 0.024)
            vessel = ellipse(u, v, size, size * rng.uniform(1, 2.5))
            image[vessel & lung] = 30
    image[ellipse(0.14, -0.1 + shift / 4, 0.24, 0.22)] = 60  # heart
    image[ellipse(0, 0.4, 0.13, 0.12)] = 350  # spine
    image[ellipse(0, 0.4, 0.09, 0.08)] = 180
    image[ellipse(0, 0.28, 0.05, 0.04)] = 160  # aorta
    return ndimage.gaussian_filter(image, side / 500)


def viewed_slice(side, number, role):
    truth = chest(side, shift=0.3 * number)
    rng = np.random.default_rng(number)
    images = {}
    for method in METHODS:
        noise = ndimage.gaussian_filter(rng.normal(size=truth.shape), 0.7)
        noise *= _NOISE_HU[method] / noise.std() * (1 + 0.3 * (2 - number))
        blurred = ndimage.gaussian_filter(truth, _BLUR_PIXELS[method])
        images[method] = to_stored_hu(blurred + noise)
    return ViewedSlice(
        name=f"phantom, slice {41 + 17 * number}",
        role=role,
        images=images,
        reference="truth",
        pixel_mm=0.7,
        facts={
            method: f"PSNR {24.1 + 3 * i - number:.1f} dB, SSIM 0.{71 + 6 * i - number}"
            for i, method in enumerate(METHODS[:-1])
        },
    )


def viewer(side=512):
    roles = ("worst", "median", "best")
    return Viewer(
        title="Worst, median and best slice",
        slices=[viewed_slice(side, number, role) for number, role in enumerate(roles)],
        note="Ordered by the PSNR of the network in the lung, worst first.",
    )


GLOSSARY = (
    Measure(
        "PSNR",
        "Peak signal-to-noise ratio in dB, from the mean squared error over 2,000 HU.",
        "Higher is better. It rewards blur: an image without detail does well.",
    ),
    Measure(
        "SSIM",
        "Structural similarity of 0 to 1 in windows of 11 by 11 pixels.",
        "1 means equal. Noise in the reference lowers it, so compare on one data set.",
    ),
    Measure(
        "Noise",
        "Standard deviation in HU where the truth is flat.",
        "Lower is better, as long as edges keep their width.",
    ),
    Measure(
        "d'",
        "Detectability of a lesion of 6 mm and 20 HU by a model observer.",
        "Higher is better. It holds for this lesion on a flat background only.",
    ),
)

HEADLINE = Table(
    "Against the truth, in the lung",
    (
        Column("Image"),
        Column("PSNR in dB", "PSNR"),
        Column("SSIM", "SSIM", digits=3),
        Column("Noise in HU", "Noise", digits=1),
        Column("d'", "d'", digits=1),
    ),
    (
        (
            "network",
            Estimate(36.214, 35.871, 36.55, 24),
            Estimate(0.9213, 0.9154, 0.9271, 24),
            Estimate(18.21, 17.4, 19.02, 24),
            Estimate(9.42, 8.9, 9.93, 24),
        ),
        (
            "BM3D",
            Estimate(34.871, 34.49, 35.23, 24),
            Estimate(0.8921, 0.8850, 0.8993, 24),
            Estimate(26.1, 25.2, 27.04, 24),
            Estimate(8.71, 8.2, 9.22, 24),
        ),
        (
            "input",
            Estimate(24.132, 23.802, 24.455, 24),
            Estimate(0.6142, 0.6033, 0.6251, 24),
            Estimate(90.34, 88.91, 91.77, 24),
            None,
        ),
    ),
    note="24 slices of 3 patients that no training saw.",
)


def _slices_table():
    rng = np.random.default_rng(5)
    rows = [
        (
            f"slice {n}",
            n,
            float(psnr),
            None if n % 7 == 0 else float(psnr / 40),
            float(100 - 2 * psnr),
        )
        for n, psnr in enumerate(rng.normal(36, 1, 24), start=1)
    ]
    columns = (
        Column("Slice"),
        Column("Number"),
        Column("PSNR in dB", "PSNR"),
        Column("SSIM", "SSIM", digits=3),
        Column("Noise in HU", "Noise", digits=1),
    )
    return Table("All slices", columns, rows, note="-: no lung in the slice.")


def _bars():
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    axes = figure.subplots()
    tissues = ("lung", "soft tissue", "bone", "vessels")
    for i, method in enumerate(("input", "BM3D", "network")):
        heights = np.array([90, 85, 120, 95]) / (1, 3.4, 4.8)[i]
        axes.bar(
            np.arange(4) + 0.27 * i,
            *(heights, 0.25),
            yerr=heights / 12,
            color=COLOURS[i],
            ecolor="black",
            capsize=2,
            label=method,
        )
    axes.set_xticks(np.arange(4) + 0.27, tissues)
    axes.set_ylabel("error in HU")
    axes.legend()
    return figure_svg(figure)


def _spectrum():
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    axes = figure.subplots()
    frequency = np.linspace(0.01, 0.7, 80)
    for i, method in enumerate(("input", "BM3D", "network")):
        power = frequency * np.exp(-frequency * (4 + 5 * i)) * 4000 / (1 + 3 * i)
        axes.plot(frequency, power, color=COLOURS[i], label=method)
    axes.set(xlabel="spatial frequency in 1/mm", ylabel="NPS in HU² mm²")
    axes.legend()
    return figure_svg(figure)


def example_report(side=512):
    """Returns a report of a denoiser with slices of `side` pixels."""
    return Report(
        title="Denoising: U-Net at 10 % of the dose",
        verdict=(
            "The network removes 80 % of the noise in the lung and is 1.3 dB better "
            "than BM3D; the intervals do not overlap."
        ),
        facts={
            "Data": "sample CT, 3 patients, 24 slices held out",
            "Network": "U-Net, 1.9 million weights",
            "Pairs": "simulated noise on both sides",
            "Dose": "10 % of the scan",
            "Seed": "7",
            "Commit": "0.1.0, commit f9f1e22c0d31",
            "Time": "42 minutes",
            "Machine": "2 cores, no accelerator, JAX 0.6.0",
        },
        headline=HEADLINE,
        warnings=("One slice has no lung: it has no values and is in no mean.",),
        sections=(
            Section("Slices", (viewer(side), _slices_table())),
            Section(
                "Noise and detail",
                (
                    Plot("Error by tissue", _bars(), "Bars: means; lines: intervals."),
                    Plot("Noise power spectrum", _spectrum()),
                ),
            ),
            Section(
                "Config", (Text("The config", "seed = 7\ndata.dose = 0.1\n" * 20),)
            ),
        ),
        glossary=GLOSSARY,
    )

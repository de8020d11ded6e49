"""Results of evaluations as tables."""

from collections.abc import Mapping
from typing import Any

from common.report import format_table
from ipv2.measures.metrics import REGIONS, WINDOWS


def format_results(results: Mapping[str, Any], *, title: str = "") -> str:
    """Returns the tables of one evaluation: input and output."""
    if not results["n_slices"]:
        return f"{title}: nothing was held out to measure".removeprefix(": ")
    tables = [_format_block(results, {"input": results["input"],
                                      "output": results["output"]},
                            results["n_slices"], title)]  # fmt: skip
    if "against_label" in results:
        block = results["against_label"]
        images = {"input": block["input"], "output": block["output"]}
        tables.append(_format_block(block, images, results["n_slices"], title))
    return "\n\n".join(tables)


def format_comparison(runs: Mapping[str, Mapping[str, Any]], *, title: str = "") -> str:
    """Returns one table of the outputs of several runs below their common input.

    The input is the first run's; that the others have the same is not checked.

    Raises:
      ValueError: there is no run, or the runs differ in the number of slices or in the
        kind of reference.
    """
    if not runs:
        raise ValueError("there is no run to compare")
    first_name, first = next(iter(runs.items()))
    for name, run in runs.items():
        for key in ("label", "n_slices"):
            if run[key] != first[key]:
                raise ValueError(
                    f"runs do not compare: {key} is {first[key]!r} for {first_name} "
                    f"but {run[key]!r} for {name}"
                )
    rows = {"input": first["input"]} | {n: run["output"] for n, run in runs.items()}
    return _format_block(first, rows, first["n_slices"], title)


def _format_block(block, images, n_slices: int, title: str) -> str:
    windows = [(name, f"{name}\n{window}") for name, window in WINDOWS.items()]
    head = f"{title}: " if title else ""
    outline = ["contour_mm"] if "contour_mm" in next(iter(images.values())) else []
    quality = format_table(
        ["image"]
        + [f"PSNR dB\n{text}" for _, text in windows]
        + [f"SSIM\n{text}" for _, text in windows]
        + [f"RMSE HU\n{text}" for _, text in windows]
        + ["lung outline\nmoved mm" for _ in outline],
        [
            [name]
            + [
                image[metric][window]
                for metric in ("psnr_db", "ssim", "rmse_hu")
                for window, _ in windows
            ]
            + [image[key] for key in outline]
            for name, image in images.items()
        ],
        digits=[0] + [2] * 3 + [4] * 3 + [1] * 3 + [2] * len(outline),
        title=f"{head}against {block['label']}, mean of {n_slices} slices, "
        "HU windows as centre/width",
    )
    titles = {
        "noise_sd_hu": "noise",
        "local_noise_sd_hu": "local noise",
        "bias_hu": "bias",
    }
    first = next(iter(images.values()))["regions"][REGIONS[0]]
    keys = [key for key in titles if key in first]
    regions = format_table(
        ["image"] + [f"{titles[key]}\n{region}" for key in keys for region in REGIONS],
        [
            [name]
            + [image["regions"][region][key] for key in keys for region in REGIONS]
            for name, image in images.items()
        ],
        digits=1,
        title=f"{head}by region in HU; bias against {block['label']}, noise: "
        f"{block['noise']}",
    )
    return f"{quality}\n\n{regions}"


def format_grid(
    runs: Mapping[str, Mapping[str, Mapping[str, Any]]], captions: Mapping[str, str]
) -> str:
    """Returns one line per training: the noise, bias and anatomy of its outputs.

    Args:
      runs: {network: {pairs: results}}, all measured on the same slices against a known
        truth. The first line is their common input.
      captions: what the table calls the pairs.
    """
    first = next(iter(next(iter(runs.values())).values()))
    rows = [("(input)", "", first["input"], first["against_label"]["input"], None)]
    rows += [
        (model, captions[pair], run["output"], run["against_label"]["output"], run)
        for model, pairs in runs.items()
        for pair, run in pairs.items()
    ]
    return format_table(
        ["network", "trained on"]
        + [f"local noise\n{region}" for region in REGIONS]
        + [f"bias\n{region}" for region in REGIONS]
        + [f"PSNR dB\n{name}" for name in ("lung", "soft_tissue")]
        + ["SSIM\nlung", "RMSE HU\nfull", "outline\nmm", "PSNR lung\nby label"]
        + ["seconds"],
        [
            [network, pairs]
            + [image["regions"][r]["local_noise_sd_hu"] for r in REGIONS]
            + [image["regions"][r]["bias_hu"] for r in REGIONS]
            + [image["psnr_db"][name] for name in ("lung", "soft_tissue")]
            + [image["ssim"]["lung"], image["rmse_hu"]["full"], image["contour_mm"]]
            + [label["psnr_db"]["lung"], run and run.get("seconds")]
            for network, pairs, image, label, run in rows
        ],
        digits=[0, 0, *[1] * 6, 2, 2, 3, 1, 2, 2, 0],
        title=f"against {first['label']}, mean of {first['n_slices']} slices; noise "
        f"and bias in HU by region; windows lung {WINDOWS['lung']}, soft tissue "
        f"{WINDOWS['soft_tissue']}; outline: how far the lungs' outline is from the "
        "truth's",
    )

"""Task compare: the same denoiser trained on differently composed pairs, side by side.

Each version is a training run of its own in `workdir/VERSION`, with its checkpoints
and results; interrupted, the command goes on with the one that was not finished.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from common.checkpoint import load_variables
from common.config import ConfigDict, hold_config
from common.devices import is_first_process, to_host
from common.files import write_atomically
from common.html_report import write_report
from ipv2 import settings
from ipv2.evaluate import format_comparison, make_denoise
from ipv2.figure import save_comparison
from ipv2.sources import open_sources
from ipv2.train import FREE_TO_CHANGE, create_params, evaluation_batch, train

_WORDS = {
    "none": "pairs as they are",
    "v1": "IPv1",
    "v2": "IPv2",
}


def compare(config: ConfigDict, workdir: Path) -> None:
    """Trains each version of `config.compare.versions`; writes a table and a picture.

    Args:
      config: of a recipe; checked here.
      workdir: the run's folder.

    Raises:
      UserError, RunFailed, Interrupted: as `train`.
    """
    settings.check(config)
    free = tuple(key for key in FREE_TO_CHANGE if key != "compare")
    hold_config(config, workdir, free=free)
    if (workdir / "results.json").exists():
        logging.info("%s is complete: %s", workdir, workdir / "results.json")
        print((workdir / "comparison.txt").read_text(encoding="utf-8"))
        return
    runs = {}
    for version in config.compare.versions:
        one = config.copy_and_resolve_references()
        one.purify.version = version
        runs[_WORDS[version]] = train(one, workdir / version)
    if not is_first_process():
        return
    table = format_comparison(runs, title="trained on")
    print(f"\n{table}")
    write_atomically(workdir / "comparison.txt", table + "\n")
    picture = workdir / "comparison.png"
    draw(config, workdir, picture)
    write_report(
        workdir / "report.html",
        title=f"{workdir.name}: {config.model.name} on differently composed pairs",
        texts={
            "Results": table,
            "Config": (workdir / "config.json").read_text(encoding="utf-8"),
        },
        pictures={"A test slice": picture.read_bytes()},
    )
    # Last, so that a folder with results is a complete comparison.
    write_atomically(workdir / "results.json", json.dumps(runs, indent=2) + "\n")
    print(f"\n{picture}\n{workdir / 'report.html'}")


def draw(config: ConfigDict, workdir: Path, path: Path) -> None:
    """Draws input, outputs and label of the test slice that shows the most lung.

    Args:
      config: of the comparison.
      workdir: holds an export in each version's folder.
      path: of the PNG.
    """
    sources = open_sources(config)
    test = sources.test if len(sources.test) else sources.val
    prepare = jax.jit(evaluation_batch(settings.label_params(config)))

    def prepared(record: dict[str, Any]) -> dict[str, Any]:
        keys = ("lq", "gt", "truth", "spacing_mm", "slice")
        batch = {key: np.asarray(record[key])[None] for key in keys if key in record}
        return to_host(prepare(batch))

    # One dataset's slices are of one kind of image: the first dataset has the say.
    first = sources.names[0]
    slices = [prepared(record) for record in test if record["dataset"] == first]
    best = max(slices, key=lambda one: int(one["regions"]["lung"].sum()))
    lq = best["lq"][0]
    images = {"low dose": lq}
    model = settings.denoiser(config)
    denoise = jax.jit(make_denoise(model))
    like = jax.eval_shape(lambda: create_params(model, config.seed))
    for version in config.compare.versions:
        variables = load_variables(workdir / version / "export", {"params": like})
        images[_WORDS[version]] = np.asarray(denoise(variables, lq[None])[0])
    reference = "truth" if "truth" in best else "label"
    images["IPv2 label"] = best["label"][0]
    if reference == "truth":
        images["truth"] = best["truth"][0]
    else:
        reference = "IPv2 label"
    captions = {
        name: f"RMSE {_lung_rmse_hu(image, images[reference], best):.0f} HU in the lung"
        for name, image in images.items()
        if name != reference
    }
    save_comparison(
        path, images, captions=captions, inset=_inset(best), reference=reference
    )


def _lung_rmse_hu(
    image: np.ndarray, reference: np.ndarray, slice_: dict[str, Any]
) -> float:
    error = (image - reference)[slice_["regions"]["lung"][0]]
    return float(np.sqrt(np.mean(np.square(error)))) if error.size else float("nan")


def _inset(slice_: dict[str, Any]) -> tuple[int, int, int]:
    """(top, left, side) of a square about the middle of the larger half of the lung."""
    lung = slice_["regions"]["lung"][0]
    height, width = lung.shape
    side = min(height, width) // 4
    left_half, right_half = lung[:, : width // 2].sum(), lung[:, width // 2 :].sum()
    half = np.zeros_like(lung)
    chosen = slice(0, width // 2) if left_half > right_half else slice(width // 2, None)
    half[:, chosen] = lung[:, chosen]
    rows, columns = np.nonzero(half if half.any() else np.ones_like(half))
    top = int(np.clip(np.median(rows) - side / 2, 0, height - side))
    left = int(np.clip(np.median(columns) - side / 2, 0, width - side))
    return top, left, side

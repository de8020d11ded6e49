"""What task quantize_denoiser leaves: export, ONNX files, report; its table."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from acq.denoisers.bits import NetworkBits
from acq.report.compose import Circumstances
from acq.report.denoiser import COLUMNS, bits_of, denoiser_report
from acq.tasks.denoiser_files import write_files
from acq.tasks.denoiser_settings import GENERATED, DenoiserTaskSettings
from common.checkpoint import export_variables
from common.devices import devices_in_words
from common.image_network import ImageNetwork
from common.onnx.package import INSTALL, has_onnx
from common.report.page import write_page
from common.report.parts import ViewedSlice
from common.text_table import format_table
from common.typing import PyTree
from common.version import STATED

# Where ranges come from, in words.
_WORDS = {
    GENERATED: "images of the generator, without data",
    "noise": "uniform noise over the range of the unit",
    "statistics": "draws of BatchNorm's outputs from its parameters, without data",
}


def description(
    settings: DenoiserTaskSettings, network: ImageNetwork
) -> dict[str, Any]:
    """Returns what files say of the quantization."""
    learned = settings.ranges == GENERATED
    run = settings.quantization
    words = {**_WORDS, **network.kinds}
    return {
        "weight_bits": settings.weight_bits,
        "activation_bits": settings.activation_bits,
        "first_last_bits": settings.first_last_bits,
        "ranges": settings.ranges,
        "ranges_in_words": words[settings.ranges],
        "generator_steps": run.generator_steps if learned else 0,
        "student_steps": run.student_steps if learned else 0,
    }


def write_export(
    settings: DenoiserTaskSettings,
    network: ImageNetwork,
    bits: NetworkBits,
    variables: PyTree,
    folder: Path,
) -> None:
    """Writes the export, and its ONNX files if onnx is installed.

    Args:
      settings: of the task.
      network: the float one.
      bits: of its convolutions.
      variables: as `acq.denoisers.rounding.settled` returns them, with `ranges`.
      folder: of the export.
    """
    said = description(settings, network)
    manifest = {
        "method": "acq",
        "task": "quantize_denoiser",
        "teacher": dict(network.identity),
        "quantized": said,
    }
    export_variables(folder, variables, manifest)
    if has_onnx():
        write_files(network, bits, variables, said, folder)
    else:
        logging.info(
            "No ONNX files, since onnx is missing: %s, then this command with --task "
            "export",
            INSTALL,
        )


def write_report(
    results: Mapping[str, Any],
    views: Sequence[ViewedSlice],
    generated: np.ndarray | None,
    workdir: Path,
) -> None:
    """Writes `report.html`.

    Args:
      results: the content of `results.json`.
      views: held-out slices with what the networks make of them.
      generated: (n, h, w) HU of the generator's images; None without a generator.
      workdir: the run's folder, with its config and metrics.
    """
    circumstances = Circumstances(
        title=f"{workdir.resolve().name}: {results['network']}",
        data=", ".join(results["judged"]),
        config=(workdir / "config.json").read_text("utf-8"),
        version=STATED,
        machine=devices_in_words(),
        written=datetime.now(UTC),
    )
    report = denoiser_report(
        results,
        views,
        generated,
        circumstances,
        student_metrics=workdir / "metrics.jsonl",
        generator_metrics=workdir / "generator" / "metrics.jsonl",
    )
    write_page(workdir / "report.html", report)


def format_judged(results: Mapping[str, Any]) -> str:
    """Returns a table for each data set; means over slices."""
    columns = [column.title.replace(", ", "\n") for column in COLUMNS.values()]
    tables = []
    for dataset, rows in results["judged"].items():
        cells = [
            (name, *(numbers.get(key) for key in COLUMNS))
            for name, numbers in rows.items()
        ]
        tables.append(
            format_table(
                ["row", *columns],
                cells,
                title=f"{results['network']}, {bits_of(results)}, {dataset}: PSNR of "
                "the full range, bias and noise against the truth",
            )
        )
    return "\n\n".join(tables)

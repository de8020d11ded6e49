"""Composes reports: of a quantization, for `report.html`, and of an evaluation."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from acq.classifier import Record
from acq.diagnosis.diagnosis import Diagnosis
from acq.diagnosis.pictures import modes_png, samples_png
from acq.export import QuantizedNetwork
from acq.report.drawings import draw_centers, draw_ranges, draw_sizes
from acq.report.glossary import glossary
from acq.report.layers import stored_layers
from acq.report.naming import bits_word, own_bits
from acq.report.tables import (
    accuracy_table,
    classes_table,
    layer_sizes_table,
    ranges_table,
    samples_table,
    sizes_table,
    unmeasured_table,
)
from acq.report.verdict import evaluation_verdict, quantization_verdict
from common.report.parts import Picture, Plot, Report, Section, Table, Text
from common.report.plots import curves, figure_svg

_STUDENT = ("train/student_loss", "train/agreement", "val/top1")
_GENERATOR = ("train/generator_loss", "train/generator_statistics", "train/recognised")
_LINEAR = ("train/agreement", "val/top1", "train/recognised")
_NO_KL = (
    "KL is undefined: the quantized network or the teacher has logits that are not "
    "finite numbers."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circumstances:
    """How a report came about.

    Attributes:
      title: of the run.
      data: the name of the evaluation data; '' without any.
      config: the run's config, as text.
      version: of the software, with its commit.
      machine: the devices, in words.
      written: the end of the run.
    """

    title: str
    data: str
    config: str
    version: str
    machine: str
    written: datetime


def quantization_report(
    results: Mapping[str, Any],
    diagnosis: Diagnosis,
    quantized: QuantizedNetwork,
    circumstances: Circumstances,
    *,
    student_metrics: Path,
    generator_metrics: Path,
) -> Report:
    """Returns the report of a quantization.

    Args:
      results: the content of `results.json`.
      diagnosis: of the generator's samples.
      quantized: the exported network.
      circumstances: how the report came about.
      student_metrics: the student's `metrics.jsonl`; it may be missing.
      generator_metrics: the generator's; it may be missing, or be the same file.
    """
    record = quantized.record
    headline = accuracy_table(results) if "n" in results else unmeasured_table(results)
    sections = [
        _training_section(student_metrics, generator_metrics),
        _samples_section(results, diagnosis, record),
        _layers_section(quantized),
        config_section(circumstances),
    ]
    return composed(
        quantization_verdict(results),
        _facts(results, record, circumstances),
        headline,
        sections,
        [*results["complaints"], *_undefined(results)],
        circumstances,
    )


def evaluation_report(
    results: Mapping[str, Any],
    record: Record,
    quantized: QuantizedNetwork | None,
    warnings: Sequence[str],
    circumstances: Circumstances,
) -> Report:
    """Returns the report of an evaluation.

    Args:
      results: the content of `evaluation.json`.
      record: of the teacher.
      quantized: the exported network; None if there is none.
      warnings: of the teacher's evaluation.
      circumstances: how the report came about.
    """
    facts, bits, layers = dict(results), "", []
    if quantized is not None:
        facts |= _of_manifest(quantized.manifest)
        bits, layers = bits_word(facts["bits"]), [_layers_section(quantized)]
    return composed(
        evaluation_verdict(results, bits),
        _facts(facts, record, circumstances),
        accuracy_table(results),
        [*layers, config_section(circumstances)],
        [*warnings, *_undefined(results)],
        circumstances,
    )


def composed(
    verdict: str,
    facts: Mapping[str, str],
    headline: Table,
    sections: Sequence[Section],
    warnings: Sequence[str],
    circumstances: Circumstances,
) -> Report:
    """Returns a report with the glossary of what it names.

    Args:
      verdict: the sentence.
      facts: what was run, in the order to show.
      headline: the first table.
      sections: all else; those without parts are left out.
      warnings: what a reader must know before trusting the numbers.
      circumstances: how the report came about.
    """
    shown = [section for section in sections if section.parts]
    return Report(
        title=circumstances.title,
        verdict=verdict,
        facts=facts,
        headline=headline,
        sections=shown,
        glossary=glossary([headline], shown),
        warnings=warnings,
    )


def _facts(
    found: Mapping[str, Any], record: Record, circumstances: Circumstances
) -> dict[str, str]:
    """What was run; a fact that is not known is left out."""
    shape = " x ".join(map(str, record.image_shape(1)[1:]))
    facts = {
        "network": f"{record.name}, {record.classes} classes, images of {shape}",
        "weights": record.source or "never in a file",
        "SHA-256 of the weights": record.sha256,
        "bits": _bits(found) if "bits" in found else "",
        "evaluated on": (
            f"{circumstances.data}, {found['n']:,} images"
            if "n" in found
            else "no images"
        ),
        "images at the teacher's BatchNorm": _distance(found),
        "seed": str(found["seed"]) if "seed" in found else "",
        "steps of the student": f"{found['steps']:,}" if "steps" in found else "",
        "version": circumstances.version,
        "time": time_words(found, circumstances.written),
        "machine": circumstances.machine,
    }
    return {name: text for name, text in facts.items() if text}


def _bits(found: Mapping[str, Any]) -> str:
    other = found["bits"]["other"]
    others = "float32" if other == 32 else f"{other} bits"
    own = own_bits(found)
    return f"{bits_word(found['bits'])}, other tensors {others}" + (own and f", {own}")


def _distance(found: Mapping[str, Any]) -> str:
    statistics = found["teacher"].get("statistics")
    if statistics is None:
        return ""
    return f"distance {statistics['distance']:.2f} (0 as in training, far from 0.5 on)"


def time_words(found: Mapping[str, Any], written: datetime) -> str:
    """Returns the day, and what it took as far as `results.json` knows."""
    told = [f"{written:%Y-%m-%d %H:%M %Z}"]
    if "seconds" in found:
        # A run that was interrupted counts from its last start.
        told.append(f"{found['seconds']:,.1f} s after the last start")
    if "seconds_per_step" in found:
        told.append(f"{found['seconds_per_step']:.4f} s a step")
    return ", ".join(told)


def _of_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of an export, under the keys of `results.json`."""
    quantizer = manifest["quantizer"]
    return {
        "bits": {
            "weight": quantizer["weight_bits"],
            "activation": quantizer["activation_bits"],
            "other": quantizer["other_bits"] or 32,
        },
        "layer_bits": manifest.get("layer_bits", {}),
        "seed": manifest["seed"],
        "steps": manifest["step"],
    }


def _undefined(results: Mapping[str, Any]) -> list[str]:
    undefined = "n" in results and results.get("quantized", {"kl": 0})["kl"] is None
    return [_NO_KL] if undefined else []


def _training_section(student: Path, generator: Path) -> Section:
    plots = (
        curves_plot("Student", student, _STUDENT),
        curves_plot("Generator", generator, _GENERATOR),
    )
    return Section("Training", [plot for plot in plots if plot is not None])


def curves_plot(title: str, metrics: Path, wanted: Sequence[str]) -> Plot | None:
    """Returns curves of the metrics that were logged; None if none was."""
    lines = metrics.read_text("utf-8").splitlines() if metrics.exists() else []
    logged = {name for line in lines for name in json.loads(line)}
    names = [name for name in wanted if name in logged]
    if not names:
        return None
    return Plot(title, curves(metrics, names, linear=_LINEAR))


def _samples_section(
    results: Mapping[str, Any], diagnosis: Diagnosis, record: Record
) -> Section:
    return Section(
        "Samples of the generator",
        [
            samples_table(results, diagnosis.count),
            Picture(
                "Samples, with the teacher's attention",
                samples_png(diagnosis, record),
                "Each sample, and beside it the same under the attention in evaluation "
                "mode. A cross marks the requested centre, a circle the achieved one. "
                "Two close neighbours differ in the latent alone. A red line: the "
                "teacher sees another class.",
            ),
            classes_table(diagnosis),
            Plot(
                "Requested and achieved centres of attention",
                figure_svg(draw_centers(diagnosis)),
                f"{diagnosis.count:,} samples in evaluation mode; -1 and 1 are the "
                "image's edges.",
            ),
            Picture(
                "Attention in evaluation and in training mode",
                modes_png(diagnosis, record),
                "The same samples: left evaluation mode, right training mode, where "
                "the samples' batch normalises; below, the cosine of the two maps, "
                "which the consistency loss raises.",
            ),
        ],
    )


def _layers_section(quantized: QuantizedNetwork) -> Section:
    layers = stored_layers(quantized)
    return Section(
        "Layers of the export",
        [
            sizes_table(layers),
            Plot("Weights by layer, in kB", figure_svg(draw_sizes(layers))),
            layer_sizes_table(layers),
            Plot(
                "Ranges by layer",
                figure_svg(draw_ranges(layers)),
                "By the export's scales and zero points. Of weights, the thick bar is "
                "the median over output channels, the thin line holds all of them.",
            ),
            ranges_table(layers),
        ],
    )


def config_section(circumstances: Circumstances) -> Section:
    """Returns the config as text."""
    return Section("Config", [Text("All keys and values", circumstances.config)])

"""Results of a quantization as tables."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from acq.report.naming import ROW_NAMES, bits_word, own_bits
from common.text_table import format_table


def format_results(results: Mapping[str, Any]) -> str:
    """Returns the tables of one run: its networks, and numbers of its samples."""
    bits = bits_word(results["bits"])
    parts = []
    if "n" in results:
        nothing = (None, None, None)
        rows = [("teacher, float", results["teacher"]["top1"], *nothing)]
        rows += [
            (ROW_NAMES[name], found["top1"], *nothing)
            for name, found in results["baselines"].items()
        ]
        quantized = results["quantized"]
        keys = ("top1", "best_top1", "agreement", "kl")
        rows.append(("quantized", *(quantized[key] for key in keys)))
        if ready := results.get("integer_ready"):
            rows.append((ROW_NAMES["integer_ready"], *map(ready.get, keys)))
        parts.append(
            format_table(
                ["network", "top-1 %", "best", "as teacher %", "KL"],
                rows,
                digits=(0, 2, 2, 2, 4),
                title=f"{bits}, {results['n']:,} images, seed {results['seed']}, "
                f"{results['steps']} steps of {results['seconds_per_step']:.2f} s",
            )
        )
    if own := own_bits(results):
        parts.append(textwrap.fill(f"Layers with bits of their own: {own}", 88))
    samples = [(key.split("/")[-1], value) for key, value in results["samples"].items()]
    samples.append(("student as teacher %", results["agreement_on_samples"]))
    parts.append(format_table(["samples", "value"], samples, digits=3))
    parts += [f"Look at this: {text}" for text in results["complaints"]]
    return "\n\n".join(parts)


def format_modes(results: Mapping[str, Any]) -> str:
    """Returns the table of a network as it was trained and as its files hold it.

    Args:
      results: with `n`, `teacher`, `quantized` and `integer_ready`.
    """
    rows = [("teacher, float", results["teacher"]["top1"], None, None)]
    rows += [
        (ROW_NAMES[name], *(results[name][key] for key in ("top1", "agreement", "kl")))
        for name in ("quantized", "integer_ready")
    ]
    return format_table(
        ["network", "top-1 %", "as teacher %", "KL"],
        rows,
        digits=(0, 2, 2, 4),
        title=f"{results['n']:,} images",
    )


def format_runs(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns one table of several runs: each method's mean and spread over seeds.

    Args:
      runs: {method: results of its seeds}, all on the same images at the same bits.

    Raises:
      ValueError: There is no run, or the runs differ in bits or images.
    """
    every = [run for seeds in runs.values() for run in seeds]
    if not every:
        raise ValueError("there is no run to compare")
    for key, values in (
        ("bits", [run["bits"] for run in every]),
        ("layer_bits", [own_bits(run) for run in every]),
        ("n", [run["n"] for run in every]),
    ):
        if any(value != values[0] for value in values):
            raise ValueError(f"runs do not compare: {key} is one of {values}")
    rows = []
    for method, seeds in runs.items():
        last, best, kl = (
            [run["quantized"][key] for run in seeds]
            for key in ("top1", "best_top1", "kl")
        )
        rows.append(
            (
                method,
                len(seeds),
                _mean(last),
                max(last) - min(last),
                _mean(best),
                *((None, None) if None in kl else (_mean(kl), max(kl) - min(kl))),
                _mean([run["samples"]["samples/center_r2"] for run in seeds]),
                _mean([run["seconds_per_step"] for run in seeds]),
            )
        )
    return format_table(
        [
            "method",
            "seeds",
            "last\ntop-1 %",
            "max-min",
            "best\ntop-1 %",
            "KL",
            "max-min",
            "centre\nR^2",
            "s a\nstep",
        ],
        rows,
        digits=(0, 0, 2, 2, 2, 4, 4, 2, 2),
        title=f"{bits_word(every[0]['bits'])}, {every[0]['n']:,} images",
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

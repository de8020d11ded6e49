"""The verdict of a report: one sentence, made from the numbers of `results.json`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from acq.report.intervals import Difference, paired_difference, unpaired_difference
from acq.report.naming import ROW_NAMES, bits_word

ORACLE = "real"
"""The baseline that needs images."""


class Against(NamedTuple):
    """The quantized network against another one.

    Attributes:
      name: of the other network.
      top1: of the other network, in percent.
      difference: the quantized network's top-1 minus that.
    """

    name: str
    top1: float
    difference: Difference


def against_teacher(results: Mapping[str, Any]) -> Against:
    """Returns the quantized network against the float teacher.

    Args:
      results: of a run with evaluation images: `n`, `teacher`, `quantized`.
    """
    quantized, teacher = results["quantized"], results["teacher"]
    difference = _difference(
        quantized, teacher, quantized, "only_teacher_right", results["n"]
    )
    return Against("teacher, float", teacher["top1"], difference)


def against_baseline(results: Mapping[str, Any], name: str) -> Against:
    """Returns the quantized network against the baseline `name`."""
    found = results["baselines"][name]
    difference = _difference(
        results["quantized"], found, found, "only_baseline_right", results["n"]
    )
    return Against(ROW_NAMES[name], found["top1"], difference)


def best_data_free(results: Mapping[str, Any]) -> str | None:
    """Returns the baseline with the most images right that needs none; None if none."""
    found = {
        name: one["correct"]
        for name, one in results.get("baselines", {}).items()
        if name != ORACLE
    }
    return max(found, key=found.__getitem__) if found else None


def quantization_verdict(results: Mapping[str, Any]) -> str:
    """Returns what came out of a quantization, in one sentence.

    Args:
      results: the content of `results.json`.
    """
    bits = bits_word(results["bits"])
    if "n" not in results:
        return _without_images(bits, results["agreement_on_samples"])
    found = _with_images(bits, results)
    best = best_data_free(results)
    if best is None:
        return f"{found}; no rounding without data was measured."
    other = against_baseline(results, best)
    return (
        f"{found}, and {_in_words(other)} against the {other.top1:.2f} % of the best "
        f"rounding without data ({other.name!r})."
    )


def evaluation_verdict(results: Mapping[str, Any], bits: str) -> str:
    """Returns what came out of an evaluation, in one sentence.

    Args:
      results: the content of `evaluation.json`.
      bits: such as "W4A4"; '' if no quantized network was evaluated.
    """
    if "quantized" in results:
        return f"{_with_images(bits, results)}."
    top1 = results["teacher"]["top1"]
    return (
        f"The float teacher gets {top1:.2f} % of {results['n']:,} images right; the "
        "folder holds no quantized network."
    )


def _with_images(bits: str, results: Mapping[str, Any]) -> str:
    top1, n, other = (
        results["quantized"]["top1"],
        results["n"],
        against_teacher(results),
    )
    return (
        f"{bits} gets {top1:.2f} % of {n:,} images right: {_in_words(other)} against "
        f"the float teacher's {other.top1:.2f} %"
    )


def _without_images(bits: str, agreement: float | None) -> str:
    measured = (
        "and no step was logged"
        if agreement is None
        else f"but it gives {agreement:.2f} % of the last samples the teacher's class"
    )
    return (
        f"{bits} was made without images to evaluate on: top-1 is unknown, {measured}."
    )


def _in_words(against: Against) -> str:
    points, low, high, _, p = against.difference
    how = "unpaired"
    if p is not None:
        how = f"paired, McNemar's p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'}"
    unclear = "" if against.difference.shows else ": no difference shown"
    interval = f"95 % interval {low:+.2f} to {high:+.2f}"
    return f"{points:+.2f} points ({interval}; {how}{unclear})"


def _difference(
    quantized: Mapping[str, Any],
    other: Mapping[str, Any],
    counts: Mapping[str, Any],
    only_other: str,
    n: int,
) -> Difference:
    """The difference, paired if `counts` holds the images that one alone has right."""
    if only_other in counts:
        return paired_difference(counts["only_quantized_right"], counts[only_other], n)
    return unpaired_difference(quantized["correct"], other["correct"], n)

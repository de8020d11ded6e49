"""The tables of a report."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from acq.diagnosis.diagnosis import Diagnosis
from acq.report import glossary
from acq.report.intervals import wilson
from acq.report.layers import Form, StoredLayers, Values, Weights
from acq.report.naming import ROW_NAMES
from acq.report.verdict import Against, against_baseline, against_teacher
from common.report.parts import Cell, Column, Estimate, Table

MOST_CLASSES = 100
"""Of more classes, the table holds those in the picture."""

_NETWORK = (Column("network"), Column("top-1, %", glossary.TOP1))
_STUDENT = (
    Column("best top-1, %", glossary.BEST),
    Column("as teacher, %", glossary.AS_TEACHER),
    Column("KL, nats", glossary.KL, digits=4),
    Column("quantized minus this, points", glossary.DIFFERENCE),
)
_UNPAIRED = (
    "The intervals of differences are unpaired, and too wide, where an older version "
    "did not count the images that only one network gets right."
)
_FORMS: tuple[Form, ...] = ("float32", "stored", "packed")


def accuracy_table(results: Mapping[str, Any]) -> Table:
    """Returns the networks and their accuracies.

    Args:
      results: with `n` and `teacher`, and `quantized` and `baselines` if there are any.
    """
    title = f"Accuracy on {results['n']:,} images"
    teacher = ("teacher, float", _top1(results["teacher"], results["n"]))
    if "quantized" not in results:
        return Table(title, _NETWORK, [teacher])
    nothing, quantized = (None, None, None), results["quantized"]
    compared = [against_teacher(results)]
    rows: list[tuple[Cell, ...]] = [(*teacher, *nothing, _points(compared[0]))]
    for name, found in results.get("baselines", {}).items():
        compared.append(against_baseline(results, name))
        top1 = _top1(found, results["n"])
        rows.append((ROW_NAMES[name], top1, *nothing, _points(compared[-1])))
    measured = (quantized.get("best_top1"), quantized["agreement"], quantized["kl"])
    rows.append(("quantized", _top1(quantized, results["n"]), *measured, None))
    if ready := results.get("integer_ready"):
        measured = (None, ready["agreement"], ready["kl"])
        top1 = _top1(ready, results["n"])
        rows.append((ROW_NAMES["integer_ready"], top1, *measured, None))
    unpaired = any(one.difference.p is None for one in compared)
    return Table(title, (*_NETWORK, *_STUDENT), rows, _UNPAIRED if unpaired else "")


def unmeasured_table(results: Mapping[str, Any]) -> Table:
    """Returns the one number of a network that no images were given for."""
    return Table(
        "No images to evaluate on",
        (Column("measure"), Column("value")),
        [(glossary.AGREEMENT_ON_SAMPLES, results["agreement_on_samples"])],
        "Give config.eval.path or config.eval.dataset to measure top-1.",
    )


def samples_table(results: Mapping[str, Any], count: int) -> Table:
    """Returns the numbers of the samples, by their names in `results.json`.

    Args:
      results: with `samples` and `agreement_on_samples`.
      count: samples that were measured.
    """
    rows = [(key.split("/")[-1], value) for key, value in results["samples"].items()]
    rows.append((glossary.AGREEMENT_ON_SAMPLES, results["agreement_on_samples"]))
    return Table(
        f"{count:,} samples",
        (Column("measure"), Column("value", digits=3)),
        rows,
        "A measure that does not exist, such as R² of equal requests, has no row.",
    )


def classes_table(diagnosis: Diagnosis) -> Table:
    """Returns how many samples of each class the teacher recognises."""
    drawn = np.flatnonzero(diagnosis.drawn)
    few = len(drawn) <= MOST_CLASSES
    shown = drawn if few else np.unique(diagnosis.examples.label)
    rows = [
        (
            f"class {k}",
            int(diagnosis.drawn[k]),
            int(diagnosis.recognised[k]),
            100 * float(diagnosis.recognised[k] / diagnosis.drawn[k]),
        )
        for k in shown
    ]
    columns = (
        Column("class"),
        Column("samples"),
        Column("recognised"),
        Column("recognised, %", "recognised", digits=0),
    )
    note = "" if few else f"The classes of the picture, of {len(drawn):,} drawn."
    return Table("Samples that the teacher recognises, by class", columns, rows, note)


def ranges_table(layers: StoredLayers) -> Table:
    """Returns bits, range and step of each layer, in the order of their calls."""
    columns = (
        Column("layer"),
        Column("of"),
        Column("bits", glossary.BITS),
        Column("lowest", glossary.RANGE, digits=4),
        Column("highest", glossary.RANGE, digits=4),
        Column("step", glossary.STEP, digits=5),
    )
    rows = [_range_row(one) for one in (*layers.weights, *layers.values)]
    return Table("Ranges by layer", columns, rows)


def layer_sizes_table(layers: StoredLayers) -> Table:
    """Returns the bytes of each layer's weights in three forms."""
    columns = (
        Column("layer"),
        Column("of"),
        Column("bits", glossary.BITS),
        Column("weights"),
        Column("float32, bytes"),
        Column("one byte a code, bytes", glossary.STORED),
        Column("packed, bytes", glossary.PACKED),
    )
    rows = [
        (
            *(one.name, one.kind, one.bits, one.count),
            *(one.float_bytes, one.stored_bytes, one.packed_bytes),
        )
        for one in layers.weights
    ]
    return Table("Weights by layer", columns, rows)


def sizes_table(layers: StoredLayers) -> Table:
    """Returns the bytes of the whole network in three forms."""
    columns = (
        Column("bytes of"),
        Column("float32 network"),
        Column("export, one byte a code", glossary.STORED),
        Column("packed", glossary.PACKED),
    )
    forms = [layers.sizes[form] for form in _FORMS]
    rows = [
        ("weights", *(one.weights for one in forms)),
        ("scales and zero points", *(one.constants for one in forms)),
        ("biases and batch norms, float", *(one.others for one in forms)),
        ("all", *(one.total for one in forms)),
    ]
    whole, stored, packed = (one.total for one in forms)
    note = (
        f"The export's arrays are {stored / whole:.1%} of the float network's; packed "
        f"they would be {packed / whole:.1%}."
    )
    return Table("Sizes", columns, rows, note)


def _top1(found: Mapping[str, Any], n: int) -> Estimate:
    return Estimate(found["top1"], *wilson(found["correct"], n), n)


def _points(against: Against) -> Estimate:
    points, low, high, n, _ = against.difference
    return Estimate(points, low, high, n)


def _range_row(one: Weights | Values) -> tuple[Cell, ...]:
    ends = np.min(one.low), np.max(one.high), np.median(one.scale)
    return (one.name, one.kind, one.bits, *map(float, ends))

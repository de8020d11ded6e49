"""Whether two students differ by more than chance of the test images makes likely.

  python -m tests.benchmarks.acq_pairs --images NPZ WORKDIR WORKDIR ...

Exports are compared two by two on the same images. Only images that one of the two gets
right tell them apart: their number's root is the sd of the difference in images, and
McNemar's exact test how often a fair coin would part them as unevenly.
"""

import argparse
import functools
import math
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from acq.accuracy import (
    classes_of,
    logits_of,
    measure_accuracy,
    predict,
)
from acq.export import load_quantized
from common.report import format_table


@functools.cache
def logits_of_export(workdir: Path, images: Path) -> np.ndarray:
    """Of every image of an .npz."""
    loaded = load_quantized(workdir / "export")
    with np.load(images) as file:
        return predict(
            logits_of(loaded.network),
            loaded.variables,
            file["images"],
            batch_size=250,
            normalisation=loaded.record.normalisation,
            name=workdir.name,
        )


def main() -> None:
    """Prints a row a pair."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("workdirs", type=Path, nargs="+")
    options = parser.parse_args()
    if len(options.workdirs) % 2:
        parser.error(f"workdirs come in pairs, got {len(options.workdirs)}")
    with np.load(options.images) as file:
        labels = file["labels"]
    rows = []
    for pair in zip(options.workdirs[::2], options.workdirs[1::2], strict=True):
        logits = [logits_of_export(workdir, options.images) for workdir in pair]
        first, second = (classes_of(found) == labels for found in logits)
        only_first = int(np.sum(first & ~second))
        only_second = int(np.sum(second & ~first))
        apart = only_first + only_second
        rows.append(
            (
                f"{pair[0].name}, {pair[1].name}",
                *(measure_accuracy(found, labels).top1 for found in logits),
                only_first,
                only_second,
                100 * math.sqrt(apart) / len(labels),
                binomtest(only_first, apart).pvalue if apart else 1.0,
            )
        )
    header = ["first, second", "top-1 %", "top-1 %", "only\nfirst", "only\nsecond"]
    print(
        format_table(
            [*header, "sd of\ndifference", "p"],
            rows,
            digits=(0, 2, 2, 0, 0, 2, 3),
            title=f"{len(labels):,} images",
        )
    )


if __name__ == "__main__":
    main()

"""Tests whether two students differ by more than chance on the same images.

    python -m tests.benchmarks.acq_pairs --images NPZ WORKDIR WORKDIR ... [--smoke]

Compares the exports of the workdirs two by two. Only images that just one of the two
classifies correctly tell them apart. The root of their number is the sd of the
difference, in images. p is that of McNemar's exact test: the probability that a fair
coin splits these images as unevenly.
"""

import functools
import math
import tempfile
from collections.abc import Sequence
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
from common.text_table import format_table
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.shared.stand_ins import write_images, write_quantized


@functools.cache
def logits_of_export(workdir: Path, images: Path) -> np.ndarray:
    """Returns the logits of an export for every image of an .npz."""
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


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints a row for each pair."""
    parser = create_parser(__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("workdirs", type=Path, nargs="+")
    with tempfile.TemporaryDirectory() as folder:
        options = parse(parser, command_line, lambda: smoke(Path(folder)))
        if len(options.workdirs) % 2:
            parser.error(f"workdirs come in pairs, got {len(options.workdirs)}")
        print_pairs(options.images, options.workdirs)


def smoke(folder: Path) -> list[str]:
    """Writes images and two exports; returns the arguments of a run with them."""
    images = folder / "images.npz"
    write_images(images, 20)
    workdirs = [folder / "first", folder / "second"]
    for seed, workdir in enumerate(workdirs):
        write_quantized(workdir, seed=seed)
    return [f"--images={images}", *map(str, workdirs)]


def print_pairs(images: Path, workdirs: Sequence[Path]) -> None:
    """Prints the table."""
    with np.load(images) as file:
        labels = file["labels"]
    rows = []
    for pair in zip(workdirs[::2], workdirs[1::2], strict=True):
        logits = [logits_of_export(workdir, images) for workdir in pair]
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

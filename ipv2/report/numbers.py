"""The numbers of one data set as reports read them: means, intervals, slices.

The results of one run name its network's image `output`. Those of several runs on the
same slices are joined here, and each output has the name of its run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.report.parts import Estimate
from ipv2.measures.evaluation import INPUT
from ipv2.measures.intervals import Summary, resampled_groups, summarise

OUTPUT = "output"
ALIGNED = ("truth", "gt")
"""Labels that show the anatomy where the input has it."""

Path = tuple[str, ...]
Results = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetNumbers:
    """What was measured on one data set.

    Attributes:
      name: of the data set.
      block: of the first run: what all runs have in common.
      blocks: by the name of an image: the block with its numbers, and its name there.
      rows: of each slice: what names it, and the numbers of each image.
      outputs: the images that networks made, in order.
    """

    name: str
    block: Results
    blocks: Mapping[str, tuple[Results, str]]
    rows: Sequence[Results]
    outputs: Sequence[str]

    @property
    def images(self) -> list[str]:
        """All images: the input, filters, outputs."""
        return list(self.blocks)

    @property
    def filters(self) -> list[str]:
        """The images that filters made."""
        return [n for n in self.images if n != INPUT and n not in self.outputs]

    @property
    def aligned(self) -> bool:
        """Whether the reference shows the anatomy where the input has it."""
        return self.block["label"] in ALIGNED

    def has(self, path: Path) -> bool:
        """Returns whether some image has this measure, if perhaps no number of it."""
        return any(_holds(block[image], path) for block, image in self.blocks.values())

    def estimate(self, image: str, path: Path) -> Estimate | None:
        """Returns a mean with its interval; None where it is not defined."""
        block, name = self.blocks[image]
        mean = at(block[name], path)
        if mean is None:
            return None
        interval, n = (at(block[key], (name, *path)) for key in ("interval", "n"))
        low, high = interval or (None, None)
        return Estimate(mean, low, high, n)

    def values(self, image: str, path: Path) -> np.ndarray:
        """Returns the number of every slice; NaN where it is not defined."""
        found = [at(row, (image, *path)) for row in self.rows]
        return np.array([np.nan if one is None else one for one in found], np.float64)

    def paired(self, image: str, other: str, path: Path) -> Summary:
        """Returns the mean over slices of the number of `image` less that of `other`.

        With a 95 % interval over patients, or over slices if there is one patient.
        """
        _, groups = resampled_groups([row["patient"] for row in self.rows])
        difference = self.values(image, path) - self.values(other, path)
        return summarise(difference, groups)

    def best(self, images: Sequence[str], path: Path) -> str | None:
        """Returns the image of the greatest mean; None if no image has one."""
        found = {image: self.estimate(image, path) for image in images}
        known = {image: one.mean for image, one in found.items() if one is not None}
        return max(known, key=lambda image: known[image]) if known else None


def at(tree: Any, path: Path) -> Any:
    """Returns the value at a path of keys; None where there is none."""
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _holds(tree: Any, path: Path) -> bool:
    *before, last = path
    parent = at(tree, tuple(before))
    return isinstance(parent, Mapping) and last in parent


def dataset_numbers(results: Results, output: str = OUTPUT) -> list[DatasetNumbers]:
    """Returns the numbers of every data set of one run.

    Args:
      results: the content of a `results.json`.
      output: what to call the network's image.
    """
    return joined_numbers({output: results})


def joined_numbers(runs: Mapping[str, Results]) -> list[DatasetNumbers]:
    """Returns the numbers of every data set of runs on the same slices.

    Input and filters are those of the first run.

    Args:
      runs: results by the name of the run.
    """
    first = next(iter(runs.values()))
    return [_joined(name, block, runs) for name, block in first["datasets"].items()]


def against_label(numbers: DatasetNumbers) -> DatasetNumbers | None:
    """Returns the numbers against IPv2's test label; None if there are none."""
    key = "against_label"
    if not all(key in block for block, _ in numbers.blocks.values()):
        return None
    blocks = {name: (block[key], own) for name, (block, own) in numbers.blocks.items()}
    return dataclasses.replace(
        numbers, block=numbers.block[key], blocks=blocks, rows=()
    )


def _joined(name: str, block: Results, runs: Mapping[str, Results]) -> DatasetNumbers:
    of_run = {run: results["datasets"][name] for run, results in runs.items()}
    made = {run: one for run, one in of_run.items() if OUTPUT in one["n"]}
    common = [image for image in block["n"] if image != OUTPUT]
    return DatasetNumbers(
        name=name,
        block=block,
        blocks={image: (block, image) for image in common}
        | {run: (one, OUTPUT) for run, one in made.items()},
        rows=_joined_rows(name, runs),
        outputs=tuple(made),
    )


def _joined_rows(name: str, runs: Mapping[str, Results]) -> list[dict[str, Any]]:
    """Returns the slices of a data set, with the outputs of every run."""
    by_run = {
        run: [row for row in results["slices"] if row["dataset"] == name]
        for run, results in runs.items()
    }
    first = next(iter(by_run.values()))
    rows = [{k: v for k, v in row.items() if k != OUTPUT} for row in first]
    for run, theirs in by_run.items():
        for row, other in zip(rows, theirs, strict=True):
            if OUTPUT in other:
                row[run] = other[OUTPUT]
    return rows

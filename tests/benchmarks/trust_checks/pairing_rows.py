"""Scenarios on the pairing of slices; a mark in every slice identifies it."""

from pathlib import Path

import numpy as np

from tests.benchmarks.trust_checks import dicom_checks as checks
from tests.benchmarks.trust_checks.batch_rows import Bench
from tests.benchmarks.trust_checks.ownership_rows import run_on
from tests.benchmarks.trust_checks.scenarios import Scenario, completion
from tests.cases import writing
from tests.cases.pair_cases import SIZE
from tests.cases.source import synthetic

_MARK = np.s_[4:8, 6:14]  # see `source.chest`


def _series(folder: Path, z_mm: np.ndarray, chosen: slice) -> None:
    """Writes the slices `chosen` of a series at the positions `z_mm`."""
    source = synthetic(len(z_mm), size=SIZE)
    slices = source.slices()
    for data, z in zip(slices, z_mm, strict=True):
        data.ImagePositionPatient[2] = data.SliceLocation = f"{z:.1f}"
    writing.write(folder, slices[chosen], source.hu[chosen])


def two_spacings(bench: Bench, folder: Path) -> list[str]:
    """One side has 60 slices 1.0 mm apart, then 60 at 1.2 mm; the other these last."""
    root, output = folder / "in", folder / "out"
    gaps = np.concatenate([np.full(60, 1.0), np.full(59, 1.2)])
    z_mm = np.concatenate([[-100.0], -100.0 + np.cumsum(gaps)])
    _series(root / "lq/p1/series", z_mm, np.s_[:])
    _series(root / "gt/p1/series", z_mm, np.s_[60:])
    ran = run_on("purify", bench, root, output)
    return completion(ran) or _mark_problems(output / "{side}/p1/series", 60)


def _mark_problems(pattern: Path, count: int) -> list[str]:
    """Returns positions where the marks of both sides differ."""
    sides = []
    for side in ("lq_bar", "gt_bar"):
        folder = Path(str(pattern).format(side=side))
        if not folder.is_dir():
            return [f"{side} is not there"]
        found = [checks.read_dicom(path) for path in folder.iterdir()]
        sides.append(
            {
                float(data.ImagePositionPatient[2]): float(
                    checks.hu_of(data)[_MARK].mean()
                )
                for data in found
            }
        )
    low, normal = sides
    problems = []
    if len(low) != count:
        problems.append(f"{len(low)} pairs of slices, right are {count}")
    # Marks are 10 HU apart, their mean is known to 2 HU.
    wrong = [z for z in low if abs(low[z] - normal.get(z, np.inf)) > 5]
    if wrong:
        problems.append(f"{len(wrong)} of {len(low)} slices have a wrong partner")
    return problems


def one_without_partner(bench: Bench, folder: Path) -> list[str]:
    """gt lacks the last slice: the others are paired, and a message names it."""
    root, output = folder / "in", folder / "out"
    z_mm = -100 + 2.5 * np.arange(6)
    _series(root / "lq/p1/series", z_mm, np.s_[:])
    _series(root / "gt/p1/series", z_mm, np.s_[:5])
    ran = run_on("purify", bench, root, output)
    problems = completion(ran) or _mark_problems(output / "{side}/p1/series", 5)
    return problems or ([] if "1 of 6" in ran.text else ["no message has 1 of 6"])


PAIRING = [
    Scenario("two_spacings_60_and_60", "purify", two_spacings, refused=False),
    Scenario("one_slice_without_partner", "purify", one_without_partner, refused=False),
]

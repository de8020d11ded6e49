"""Finding volumes in folders, pairing them by name, and reading many of them.

The layout of a paired data set:

    root/lq/patient1/scan.nii.gz      root/gt/patient1/scan.mha       any formats
    root/lq/patient2/series/*.dcm     root/gt/patient2/series/*.dcm   folder = series
    root/lq/p3_0001.png               root/gt/p3_0001.png             patient p3

Two volumes are a pair if their paths below lq/ and gt/ agree, extension aside. In a
batch a bad item does not stop the rest: it becomes a `Skipped`, which the caller counts
and lists at the end (`describe_skipped`).
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from common.errors import UserError
from ipv2.ct_io.dicom_header import is_dicom, read_header
from ipv2.ct_io.dicom_series import first_ct_header
from ipv2.ct_io.formats import SUFFIXES, stem_of, suffix_of
from ipv2.ct_io.reading import peek, read_volume
from ipv2.ct_io.volume import ReadOptions, Skipped, Volume

LAYOUT = (
    "Expected: root/lq and root/gt with the same names below both, for instance "
    "root/lq/patient1/scan.nii.gz and root/gt/patient1/scan.nii.gz, or a folder of "
    "DICOM slices for each scan"
)

_DEFAULT = ReadOptions()
Match: TypeAlias = Literal["position", "index"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A volume found below a folder, not read yet.

    Attributes:
      name: its path below that folder without extension, 'patient1/scan'; for a DICOM
        series its folder's; '' for a series that lies in the folder itself.
      path: the file, or the folder of a series.
    """

    name: str
    path: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Every file below a folder: it belongs to a volume, or is not used for a reason.

    Attributes:
      items: the volumes, sorted by name.
      unused: the other files.
    """

    items: tuple[Item, ...]
    unused: tuple[Skipped, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairItem:
    """A low-dose and a normal-dose volume of one name; '' is a series in lq/ itself."""

    name: str
    lq: Path
    gt: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedPaths:
    """What a data set's root holds: pairs by name, and what has no partner."""

    pairs: tuple[PairItem, ...]
    skipped: tuple[Skipped, ...]


def list_volumes(root: str | os.PathLike[str]) -> Found:
    """The volumes below a folder, sorted by name, and the files that are none.

    A folder with DICOM files in it is one series (`read_volume` takes the folder);
    every other file with an extension of `ct_io.SUFFIXES` is a volume.

    Raises:
      UserError: root is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder.")
    found: list[Item] = []
    for current, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        folder = Path(current)
        relative = folder.relative_to(root)
        dicom = False
        for file in sorted(f for f in files if not f.startswith(".")):
            path = folder / file
            suffix = suffix_of(path)
            if suffix in (".dcm", ".ima") or (not suffix and is_dicom(path)):
                dicom = True
            elif suffix:
                found.append(
                    Item(name=(relative / stem_of(path)).as_posix(), path=path)
                )
        if dicom:
            name = "" if folder == root else relative.as_posix()
            found.append(Item(name=name, path=folder))
    found.sort(key=lambda item: (item.name, str(item.path)))
    return Found(items=tuple(found), unused=())


def count_slices(item: Item) -> int:
    """About how many slices a volume has, for a progress bar; 0 if it is damaged.

    Of a series, its files: their headers are not opened.
    """
    if item.path.is_dir():
        return sum(
            path.is_file() and suffix_of(path) in (".dcm", ".ima", "")
            for path in item.path.iterdir()
            if not path.name.startswith(".")
        )
    if SUFFIXES.get(suffix_of(item.path), "dicom") == "dicom":
        return 1
    try:
        return peek(item.path)[0]
    except UserError:
        return 0


def paired_paths(root: str | os.PathLike[str]) -> PairedPaths:
    """Pairs of root/lq and root/gt by name, and what has no partner.

    Raises:
      UserError: there is no lq or gt folder, or not a single pair.
    """
    root = Path(root)
    for side in ("lq", "gt"):
        if not (root / side).is_dir():
            raise UserError(f"{root / side}: no such folder. {LAYOUT}.")
    skipped: list[Skipped] = []
    sides: dict[str, dict[str, Path]] = {}
    for side in ("lq", "gt"):
        sides[side] = _unique(list_volumes(root / side).items, skipped)
    for side, other in (("lq", "gt"), ("gt", "lq")):
        for name in sorted(sides[side].keys() - sides[other].keys()):
            reason = (
                f"no {name or 'series'!r} in {root / other}: {side} without {other}"
            )
            skipped.append(Skipped(path=sides[side][name], reason=reason))
    pairs = tuple(
        PairItem(name=name, lq=sides["lq"][name], gt=sides["gt"][name])
        for name in sorted(sides["lq"].keys() & sides["gt"].keys())
    )
    if not pairs:
        raise UserError(
            f"{root}: no pair: {len(sides['lq'])} volumes in lq, {len(sides['gt'])} in "
            f"gt, no name in both. {LAYOUT}.\n{describe_skipped(skipped)}".rstrip()
        )
    return PairedPaths(pairs=pairs, skipped=tuple(skipped))


def _unique(items: Sequence[Item], skipped: list[Skipped]) -> dict[str, Path]:
    groups: dict[str, list[Path]] = {}
    for item in items:
        groups.setdefault(item.name, []).append(item.path)
    for name, paths in groups.items():
        if len(paths) > 1:
            listing = ", ".join(path.name for path in paths)
            reason = f"several volumes are named {name!r}: {listing}; keep one"
            skipped.extend(Skipped(path=path, reason=reason) for path in paths)
    return {name: paths[0] for name, paths in groups.items() if len(paths) == 1}


def describe_skipped(skipped: Sequence[Skipped]) -> str:
    """A count and one line for each, '' if nothing was skipped."""
    if not skipped:
        return ""
    lines = [f"  {s.path}: {_without_path(s)}" for s in skipped]
    return "\n".join([f"{len(skipped)} skipped:", *lines])


def _without_path(skipped: Skipped) -> str:
    return skipped.reason.removeprefix(f"{skipped.path}: ")


def read_many(
    items: Iterable[Item],
    skipped: list[Skipped],
    options: ReadOptions = _DEFAULT,
) -> Iterator[tuple[Item, Volume]]:
    """Each item with its volume; the unreadable ones are appended to `skipped`.

    Args:
      items: from `list_volumes`.
      skipped: takes what could not be read, and why.
      options: as for `read_volume`.
    """
    for item in items:
        try:
            volume = read_volume(item.path, options)
        except UserError as error:
            skipped.append(Skipped(path=item.path, reason=str(error)))
            continue
        yield item, volume


def read_pairs(
    pairs: Iterable[PairItem],
    skipped: list[Skipped],
    options: ReadOptions = _DEFAULT,
) -> Iterator[tuple[PairItem, Volume, Volume]]:
    """Each pair with its (lq, gt) volumes; bad ones are appended to `skipped`.

    Arguments as for `read_many`.
    """
    for pair in pairs:
        path = pair.lq
        try:
            lq = read_volume(pair.lq, options)
            path = pair.gt
            gt = read_volume(pair.gt, options)
        except UserError as error:
            skipped.append(Skipped(path=path, reason=str(error)))
            continue
        yield pair, lq, gt


def patient_of(item: Item) -> str:
    """Who a volume is of, for splits that keep a patient's slices together.

    DICOM PatientID; else the first folder of the item's name; else, of a file that is a
    whole volume, its name; of one that is a slice, its name up to the slice number:
    then 'p3_0001' and 'p3_0002' are patient 'p3', and bare numbers are one patient,
    since neighbouring slices of one person must not end up in two splits.

    Reads headers only.

    Raises:
      UserError: the file is no image, or damaged.
    """
    path = item.path
    folder, _, stem = item.name.rpartition("/")
    if path.is_dir():
        whole, patient = True, first_ct_header(path).patient
    elif not suffix_of(path) or SUFFIXES[suffix_of(path)] == "dicom":
        whole, patient = False, read_header(path).patient
    else:
        slices, patient = peek(path)
        whole = slices > 1
    if patient:
        return patient
    if folder:
        return folder.split("/")[0]
    stem = stem or path.resolve().name
    if whole:
        return stem
    return re.sub(r"[\s._-]*(slice|img|im)?[\s._-]*\d+$", "", stem, flags=re.I) or "one"


def slice_number(volume: Volume, name: str, index: int) -> int:
    """Index along the normal; of a single slice, the number its name ends in."""
    if len(volume.hu) == 1 and (number := re.search(r"\d+$", name)):
        return int(number.group()) % 2**31
    return index


def match_slices(
    lq: Volume, gt: Volume, *, by: Match = "position"
) -> tuple[list[tuple[int, int]], str]:
    """Which slice of gt belongs to which of lq: two breaths, not always equally long.

    By position, a slice of lq takes the slice of gt nearest to it along the normal, if
    that lies within half a slice of either; each slice is used once. By index, and for
    volumes without positions (PNG), slice i takes slice i.

    Args:
      lq: low-dose volume.
      gt: normal-dose volume.
      by: 'position' or 'index'.

    Returns:
      Pairs of indices (lq, gt), ascending in lq; and in words how many slices are left
      out, '' if none is.

    Raises:
      UserError: the grids do not fit: other pixel counts, pixel spacing, orientation or
        unit, or no slice at a common position.
    """
    _check_grids(lq, gt)
    counts = len(lq.hu), len(gt.hu)
    if by == "index" or not (lq.spacing_known and gt.spacing_known):
        pairs = [(index, index) for index in range(min(counts))]
    else:
        pairs = _by_position(lq, gt)
    if not pairs:
        raise UserError(
            f"{lq.name}: no slice of lq and gt at a common position: lq covers "
            f"{_extent(lq)}, gt {_extent(gt)} along the normal. If the table was "
            "moved between the scans, pair by index."
        )
    left = [
        f"{count - len(pairs)} of {count} {side} slices"
        for side, count in zip(("lq", "gt"), counts, strict=True)
        if count > len(pairs)
    ]
    return pairs, " and ".join(left) + " without a partner" if left else ""


def _by_position(lq: Volume, gt: Volume) -> list[tuple[int, int]]:
    where_lq, where_gt = _positions(lq, lq.normal), _positions(gt, lq.normal)
    within = min(lq.spacing_mm[0], gt.spacing_mm[0]) / 2 + 1e-3
    distance = np.abs(where_lq[:, None] - where_gt[None, :])
    nearest_gt, nearest_lq = distance.argmin(1), distance.argmin(0)
    return [
        (i, int(j))
        for i, j in enumerate(nearest_gt)
        if distance[i, j] <= within and nearest_lq[j] == i
    ]


def _positions(volume: Volume, normal: np.ndarray) -> np.ndarray:
    return np.array([volume.position_mm(i) @ normal for i in range(len(volume.hu))])


def _extent(volume: Volume) -> str:
    where = _positions(volume, volume.normal)
    return f"{where[0]:.1f} to {where[-1]:.1f} mm"


def _check_grids(lq: Volume, gt: Volume) -> None:
    for what, a, b, near in (
        ("pixels (rows, columns)", lq.hu.shape[1:], gt.hu.shape[1:], 0.0),
        # 1 % of spacing is 2.5 pixels at the edge of a 512-pixel image.
        (
            "pixel spacing (mm)",
            lq.spacing_mm[1:],
            gt.spacing_mm[1:],
            0.01 * lq.spacing_mm[1],
        ),
        # 0.02 is about one degree.
        ("orientation", lq.direction, gt.direction, 0.02),
    ):
        if not np.allclose(a, b, rtol=0, atol=near):
            raise UserError(
                f"{lq.name}: lq and gt differ in {what}: {a} and {b}. Resample one to "
                "the other's grid."
            )
    if lq.unit != gt.unit:
        raise UserError(
            f"{lq.name}: lq holds {lq.unit} values, gt {gt.unit}. For PNG beside "
            "another format, state the window of the PNG in HU."
        )

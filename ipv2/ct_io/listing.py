"""Finds volumes in folders, pairs them by name, and reads pairs.

The layout of a paired dataset:

    root/lq/patient1/scan.nii.gz      root/gt/patient1/scan.mha       any formats
    root/lq/patient2/series/*.dcm     root/gt/patient2/series/*.dcm   folder = series
    root/lq/p3_0001.png               root/gt/p3_0001.png             patient p3

Two volumes are a pair if their paths below lq/ and gt/ are equal without extension. A
bad item does not stop a batch: it becomes a `Skipped`, and the caller counts and lists
them at the end (`describe_skipped`).
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from common.errors import UserError
from ipv2.ct_io.dicom_series import FolderFiles, folder_files
from ipv2.ct_io.formats import SUFFIXES, stem_of, suffix_of
from ipv2.ct_io.image_header import text_fields
from ipv2.ct_io.reading import peek, read_volume
from ipv2.ct_io.volume import ReadOptions, Skipped, Volume

LAYOUT = (
    "Expected: root/lq and root/gt with the same names below both, for instance "
    "root/lq/patient1/scan.nii.gz and root/gt/patient1/scan.nii.gz, or a folder of "
    "DICOM slices for each scan"
)

_DEFAULT = ReadOptions()
# Up to _FEW files of one reason get a line each; of more, one line names _NAMED.
_FEW, _NAMED = 5, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A volume found below a folder, not read yet.

    Attributes:
      name: path below that folder without extension, such as 'patient1/scan'; for a
        DICOM series that of its folder; '' for a series in the folder itself.
      path: the file, or the folder of a series.
    """

    name: str
    path: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """All files below a folder: those of volumes, and the unused ones with reasons.

    Attributes:
      items: the volumes, sorted by name.
      unused: the other files.
    """

    items: tuple[Item, ...]
    unused: tuple[Skipped, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairItem:
    """A low-dose and a normal-dose volume of one name; '' means a series in lq/."""

    name: str
    lq: Path
    gt: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedPaths:
    """The content of a paired dataset's root.

    Attributes:
      pairs: pairs sorted by name.
      skipped: volumes without a partner.
      unused: files that are no volumes.
    """

    pairs: tuple[PairItem, ...]
    skipped: tuple[Skipped, ...]
    unused: tuple[Skipped, ...]


def list_volumes(root: str | os.PathLike[str]) -> Found:
    """Returns the volumes below a folder, sorted by name, and the unused files.

    A folder with DICOM files is one series (`read_volume` takes the folder). Every
    other file with an extension of `ct_io.SUFFIXES` is a volume. Links to folders are
    followed; each folder is listed once.

    Raises:
      UserError: root is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder.")
    items: list[Item] = []
    unused: list[Skipped] = []
    for folder in _folders(root, unused):
        relative = folder.relative_to(root)
        files = folder_files(folder)
        images = [p for p in _visible(files) if _is_image(p)]
        dicom = [path for path in files.dicom if path not in images]
        used = {path for image in images for path in _files_of(image)}
        items += [
            Item(name=(relative / stem_of(path)).as_posix(), path=path)
            for path in images
        ]
        if dicom:
            name = "" if folder == root else relative.as_posix()
            items.append(Item(name=name, path=folder))
        unused += [one for one in files.others if one.path not in used]
    items.sort(key=lambda item: (item.name, str(item.path)))
    return Found(items=tuple(items), unused=tuple(unused))


def _folders(root: Path, unused: list[Skipped]) -> Iterator[Path]:
    """Yields a folder and all folders below it by name, each once, following links."""
    seen: dict[tuple[int, int], Path] = {}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        stat = folder.stat()
        if (earlier := seen.get((stat.st_dev, stat.st_ino))) is not None:
            reason = f"a link to {earlier}, which is listed already"
            unused.append(Skipped(path=folder, reason=reason))
            continue
        seen[stat.st_dev, stat.st_ino] = folder
        yield folder
        below = sorted(path for path in folder.iterdir() if path.is_dir())
        for path in below:
            if path.name.startswith("."):
                unused.append(Skipped(path=path, reason="a hidden folder"))
        waiting += [p for p in reversed(below) if not p.name.startswith(".")]


def _visible(files: FolderFiles) -> list[Path]:
    """Returns all files of a folder that are not hidden, by name."""
    others = [one.path for one in files.others if not one.path.name.startswith(".")]
    return sorted([*files.dicom, *others])


def _is_image(path: Path) -> bool:
    """Returns whether a file's name is that of a whole volume; it may be damaged."""
    is_entry = path.is_file() or not path.exists()  # a broken link is reported as one
    return is_entry and SUFFIXES.get(suffix_of(path), "dicom") != "dicom"


def _files_of(image: Path) -> list[Path]:
    """Returns a volume's file, and the data file that its header names."""
    if suffix_of(image) != ".mhd" or not image.is_file():
        return [image]
    data = text_fields(image, "mhd")[0].get("elementdatafile", "")
    beside = [p for p in image.parent.iterdir() if p.name.lower() == data.lower()]
    return [image, *beside]


def count_slices(item: Item) -> int:
    """Returns about how many slices a volume has, for a progress bar; 0 if damaged.

    For a series this is the number of files; their headers are not opened.
    """
    if item.path.is_dir():
        return len(folder_files(item.path).dicom)
    if SUFFIXES.get(suffix_of(item.path), "dicom") == "dicom":
        return 1
    try:
        return peek(item.path)[0]
    except (UserError, OSError):
        return 0


def paired_paths(
    root: str | os.PathLike[str], *, name_pattern: str = ""
) -> PairedPaths:
    """Returns pairs of root/lq and root/gt by name, and volumes without a partner.

    Args:
      root: folder that holds lq/ and gt/.
      name_pattern: a regular expression with a group, such as
        `(?:quarter|full)_(.+)`: names form a pair if its groups match equal texts. '':
        names form a pair if they are equal.

    Raises:
      UserError: There is no lq or gt folder, or no pair.
    """
    root = Path(root)
    for side in ("lq", "gt"):
        if not (root / side).is_dir():
            raise UserError(f"{root / side}: no such folder. {LAYOUT}.")
    skipped: list[Skipped] = []
    unused: list[Skipped] = []
    sides: dict[str, dict[str, Path]] = {}
    for side in ("lq", "gt"):
        found = list_volumes(root / side)
        unused += found.unused
        sides[side] = _unique(_keyed(found.items, name_pattern, skipped), skipped)
    for side, other in (("lq", "gt"), ("gt", "lq")):
        for name in sorted(sides[side].keys() - sides[other].keys()):
            # The reason does not hold the name, so that equal reasons are grouped.
            reason = f"nothing of its name in {root / other}: {side} without {other}"
            skipped.append(Skipped(path=sides[side][name], reason=reason))
    pairs = tuple(
        PairItem(name=name, lq=sides["lq"][name], gt=sides["gt"][name])
        for name in sorted(sides["lq"].keys() & sides["gt"].keys())
    )
    if not pairs:
        raise UserError(
            f"{root}: no pair: {len(sides['lq'])} volumes in lq, {len(sides['gt'])} in "
            f"gt, no name in both. {LAYOUT}. If names differ by a rule, give it, such "
            "as --config.data.name_pattern='(?:quarter|full)_(.+)'.\n"
            f"{describe_skipped(skipped)}".rstrip()
        )
    return PairedPaths(pairs=pairs, skipped=tuple(skipped), unused=tuple(unused))


def _keyed(
    items: Iterable[Item], pattern: str, skipped: list[Skipped]
) -> Iterator[Item]:
    """Yields the items, renamed to the names by which they are paired."""
    for item in items:
        if not pattern:
            yield item
        elif match := re.search(pattern, item.name):
            name = "_".join(group for group in match.groups() if group)
            yield dataclasses.replace(item, name=name)
        else:
            reason = f"name {item.name!r} does not fit config.data.name_pattern"
            skipped.append(Skipped(path=item.path, reason=reason))


def _unique(items: Iterable[Item], skipped: list[Skipped]) -> dict[str, Path]:
    groups: dict[str, list[Path]] = {}
    for item in items:
        groups.setdefault(item.name, []).append(item.path)
    for name, paths in groups.items():
        if len(paths) > 1:
            listing = ", ".join(path.name for path in paths)
            reason = f"several volumes are named {name!r}: {listing}; keep one"
            skipped.extend(Skipped(path=path, reason=reason) for path in paths)
    return {name: paths[0] for name, paths in groups.items() if len(paths) == 1}


def describe_skipped(skipped: Sequence[Skipped], *, word: str = "skipped") -> str:
    """Returns a count and one line for each file, '' without files.

    If many files have one reason, one line counts them and names the first few.

    Args:
      skipped: the files that were left out.
      word: the word for them after the count.
    """
    if not skipped:
        return ""
    groups: dict[str, list[Path]] = {}
    for one in skipped:
        groups.setdefault(one.reason.removeprefix(f"{one.path}: "), []).append(one.path)
    lines = []
    for reason, paths in groups.items():
        if len(paths) > _FEW:
            first = ", ".join(str(path) for path in paths[:_NAMED])
            lines.append(f"  {len(paths)} times: {reason}: {first}, ...")
        else:
            lines += [f"  {path}: {reason}" for path in paths]
    return "\n".join([f"{len(skipped)} {word}:", *lines])


def read_pairs(
    pairs: Iterable[PairItem],
    skipped: list[Skipped],
    options: ReadOptions = _DEFAULT,
) -> Iterator[tuple[PairItem, Volume, Volume]]:
    """Yields each pair with its volumes (lq, gt); appends bad ones to `skipped`.

    Args:
      pairs: pairs of `paired_paths`.
      skipped: receives the files that could not be read, with the reason.
      options: see `read_volume`.
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

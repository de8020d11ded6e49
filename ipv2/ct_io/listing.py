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
# Of one reason so many are listed each, and so many named where there are more.
_FEW, _NAMED = 5, 3


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
    """What a data set's root holds.

    Attributes:
      pairs: by name.
      skipped: volumes without a partner.
      unused: files that are no volume.
    """

    pairs: tuple[PairItem, ...]
    skipped: tuple[Skipped, ...]
    unused: tuple[Skipped, ...]


def list_volumes(root: str | os.PathLike[str]) -> Found:
    """The volumes below a folder, sorted by name, and the files that are none.

    A folder with DICOM files in it is one series (`read_volume` takes the folder);
    every other file with an extension of `ct_io.SUFFIXES` is a volume. Links to folders
    are followed, each folder once.

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
        images = [p for p in _listed(files) if _is_image(p)]
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
    """A folder and all below it, by name, each once, links followed."""
    seen: dict[tuple[int, int], Path] = {}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        stat = folder.stat()
        if (known := seen.get((stat.st_dev, stat.st_ino))) is not None:
            reason = f"a link to {known}, which is looked into already"
            unused.append(Skipped(path=folder, reason=reason))
            continue
        seen[stat.st_dev, stat.st_ino] = folder
        yield folder
        below = sorted(path for path in folder.iterdir() if path.is_dir())
        for path in below:
            if path.name.startswith("."):
                unused.append(Skipped(path=path, reason="a hidden folder"))
        waiting += [p for p in reversed(below) if not p.name.startswith(".")]


def _listed(files: FolderFiles) -> list[Path]:
    """All files of a folder that are not hidden, by name."""
    others = [one.path for one in files.others if not one.path.name.startswith(".")]
    return sorted([*files.dicom, *others])


def _is_image(path: Path) -> bool:
    """Whether a file is a volume of its own by its name; a damaged one too."""
    there = path.is_file() or not path.exists()  # a link to nothing is told as one
    return there and SUFFIXES.get(suffix_of(path), "dicom") != "dicom"


def _files_of(image: Path) -> list[Path]:
    """A volume's file, and the data beside it that its header names."""
    if suffix_of(image) != ".mhd" or not image.is_file():
        return [image]
    data = text_fields(image, "mhd")[0].get("elementdatafile", "")
    beside = [p for p in image.parent.iterdir() if p.name.lower() == data.lower()]
    return [image, *beside]


def count_slices(item: Item) -> int:
    """About how many slices a volume has, for a progress bar; 0 if it is damaged.

    Of a series, its files: their headers are not opened.
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
    """Pairs of root/lq and root/gt by name, and what has no partner.

    Args:
      root: holds lq/ and gt/.
      name_pattern: a regular expression with a group: names are a pair where what its
        groups match is equal, `(?:quarter|full)_(.+)` for instance. '': names are a
        pair where they are equal.

    Raises:
      UserError: there is no lq or gt folder, or not a single pair.
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
            # The name is the path's, so that many of them group.
            reason = f"nothing of its name in {root / other}: {side} without {other}"
            skipped.append(Skipped(path=sides[side][name], reason=reason))
    pairs = tuple(
        PairItem(name=name, lq=sides["lq"][name], gt=sides["gt"][name])
        for name in sorted(sides["lq"].keys() & sides["gt"].keys())
    )
    if not pairs:
        raise UserError(
            f"{root}: no pair: {len(sides['lq'])} volumes in lq, {len(sides['gt'])} in "
            f"gt, no name in both. {LAYOUT}. Where names differ by a rule, give it: "
            "--config.data.name_pattern='(?:quarter|full)_(.+)', say.\n"
            f"{describe_skipped(skipped)}".rstrip()
        )
    return PairedPaths(pairs=pairs, skipped=tuple(skipped), unused=tuple(unused))


def _keyed(
    items: Iterable[Item], pattern: str, skipped: list[Skipped]
) -> Iterator[Item]:
    """The items under the names that they are paired by."""
    for item in items:
        if not pattern:
            yield item
        elif match := re.search(pattern, item.name):
            named = "_".join(group for group in match.groups() if group)
            yield dataclasses.replace(item, name=named)
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
    """A count and one line for each, '' if there is none.

    Where many have one reason, one line counts them and names the first few.

    Args:
      skipped: what was left out.
      word: what to call it.
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
    """Each pair with its (lq, gt) volumes; bad ones are appended to `skipped`.

    Args:
      pairs: from `paired_paths`.
      skipped: takes what could not be read, and why.
      options: as for `read_volume`.
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

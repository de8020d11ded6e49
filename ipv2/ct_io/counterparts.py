"""Finds what other software made of volumes: by name, or by the UIDs of DICOM.

An output belongs to a volume if, in this order,

- its path below its folder, without extension, is the volume's name;
- it is DICOM, and its SeriesInstanceUID is the volume's;
- it is DICOM, and its SOPInstanceUID, or one of its SourceImageSequence, is that of one
  of the volume's slices.

Its slices are those at the volume's positions, on the volume's grid.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from ipv2.ct_io.dicom_header import DicomHeader, is_dicom, read_header, text_of
from ipv2.ct_io.dicom_series import first_ct_header, folder_files
from ipv2.ct_io.formats import SUFFIXES, suffix_of
from ipv2.ct_io.listing import Item
from ipv2.ct_io.matching import Match, match_slices
from ipv2.ct_io.volume import Skipped, Volume

# Of a pixel: a grid that lies farther away is another one.
_NEAR_PX = 0.25


class Counterparts(NamedTuple):
    """Outputs and the volumes that they belong to.

    Attributes:
      paths: the output of each volume, by the volume's name.
      skipped: outputs that belong to no volume, or that are not alone.
    """

    paths: dict[str, Path]
    skipped: list[Skipped]


def find_counterparts(
    volumes: Mapping[str, Path], outputs: Iterable[Item], *, name_pattern: str = ""
) -> Counterparts:
    """Returns the output of each volume; reads headers of DICOM alone.

    Args:
      volumes: path of each volume by its name.
      outputs: what other software made, see `list_volumes`.
      name_pattern: how the names of volumes follow from paths, see `paired_paths`.
    """
    found: dict[str, list[Path]] = {}
    unnamed: list[Item] = []
    for item in outputs:
        names = (item.name, _by_pattern(item.name, name_pattern))
        name = next((name for name in names if name in volumes), None)
        if name is None:
            unnamed.append(item)
        else:
            found.setdefault(name, []).append(item.path)
    skipped = []
    by_uid = _volumes_by_uid(volumes) if any(map(_may_be_dicom, unnamed)) else {}
    for item in unnamed:
        uids = _uids_of_output(item.path) if _may_be_dicom(item) else ()
        name = next((by_uid[uid] for uid in uids if uid in by_uid), None)
        if name is None:
            reason = "no volume of lq has its name or, for DICOM, its UIDs"
            skipped.append(Skipped(path=item.path, reason=reason))
        else:
            found.setdefault(name, []).append(item.path)
    for name, paths in found.items():
        if len(paths) > 1:
            reason = f"{len(paths)} outputs belong to {name!r}; keep one"
            skipped += [Skipped(path=path, reason=reason) for path in paths]
    single = {name: paths[0] for name, paths in found.items() if len(paths) == 1}
    return Counterparts(single, skipped)


def match_output(
    volume: Volume, output: Volume, *, by: Match = "position"
) -> dict[int, int]:
    """Returns the slice of an output at each slice of its volume that it has.

    Args:
      volume: what the output was made of.
      output: in HU. A spacing that its file does not state is taken to be the volume's.
      by: 'position'; or 'index', as without positions: then both have as many slices.

    Raises:
      UserError: the output is not in HU, or its grid is not the volume's.
    """
    output.require_hu()
    placed = volume.positions_known and output.positions_known
    if (by == "index" or not placed) and len(volume.hu) != len(output.hu):
        raise UserError(
            f"{output.name}: {len(output.hu)} slices, lq has {len(volume.hu)}, and "
            "positions do not tell which these are; give as many slices"
        )
    matches, _ = match_slices(
        volume, _with_spacing(output, volume), by=by, other="output"
    )
    if by == "position" and placed:
        _check_places(volume, output, matches)
    return dict(matches)


def _with_spacing(output: Volume, volume: Volume) -> Volume:
    if output.spacing_known and volume.spacing_known:
        return output
    return dataclasses.replace(output, spacing_mm=volume.spacing_mm)


def _check_places(
    volume: Volume, output: Volume, matches: Sequence[tuple[int, int]]
) -> None:
    """Raises UserError if slices of one position lie beside each other."""
    shifts = [output.position_mm(j) - volume.position_mm(i) for i, j in matches]
    farthest = max(shifts, key=lambda shift: float(np.linalg.norm(shift)))
    if np.linalg.norm(farthest) > _NEAR_PX * volume.spacing_mm[1]:
        x, y, z = farthest
        raise UserError(
            f"{output.name}: its slices lie ({x:.2f}, {y:.2f}, {z:.2f}) mm beside "
            "those of lq; resample it to the grid of lq"
        )


def _by_pattern(name: str, pattern: str) -> str:
    match = re.search(pattern, name) if pattern else None
    return "_".join(group for group in match.groups() if group) if match else name


def _may_be_dicom(item: Item) -> bool:
    return item.path.is_dir() or SUFFIXES.get(suffix_of(item.path), "dicom") == "dicom"


def _volumes_by_uid(volumes: Mapping[str, Path]) -> dict[str, str]:
    """Returns the volume of each series and slice; not of a UID that two have."""
    found: dict[str, set[str]] = {}
    for name, path in volumes.items():
        for header in _headers(path):
            for uid in (header.series, _sop(header)):
                found.setdefault(uid, set()).add(name)
    return {uid: names.pop() for uid, names in found.items() if uid and len(names) == 1}


def _uids_of_output(path: Path) -> tuple[str, ...]:
    """Returns the UIDs that may name a volume, the most certain first."""
    try:
        header = first_ct_header(path) if path.is_dir() else next(_headers(path), None)
    except UserError:  # it is no CT: nothing names its volume
        return ()
    if header is None:
        return ()
    sources = header.dataset.get("SourceImageSequence") or ()
    named = [text_of(one, "ReferencedSOPInstanceUID") for one in sources]
    return (header.series, _sop(header), *named)


def _headers(path: Path) -> Iterator[DicomHeader]:
    files = folder_files(path).dicom if path.is_dir() else [path]
    for file in files:
        if file.is_file() and is_dicom(file):
            yield read_header(file)


def _sop(header: DicomHeader) -> str:
    return text_of(header.dataset, "SOPInstanceUID")

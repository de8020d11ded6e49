"""DICOM CT series and slices to HU: headers by pydicom, pixels by SimpleITK.

Every slice is read on its own, for three reasons: its own rescale slope and intercept
apply, its own padding values are known, and an error can name its file.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from absl import logging

from common.errors import UserError
from ipv2.ct_io.dicom_geometry import Place, place_of, stack
from ipv2.ct_io.dicom_header import (
    LOSSY_METHODS,
    DicomHeader,
    is_dicom,
    number_of,
    read_header,
    text_of,
)
from ipv2.ct_io.dicom_padding import pad, padding_of
from ipv2.ct_io.volume import (
    Gaps,
    ReadOptions,
    Skipped,
    Slice,
    SliceSource,
    check_finite,
)

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_AGAIN = "Copy the file again from its source, or remove it."


class FolderFiles(NamedTuple):
    """The files of a folder, sorted by name.

    Attributes:
      dicom: DICOM files, and those that by their names should be.
      others: the rest, and why each is none.
    """

    dicom: tuple[Path, ...]
    others: tuple[Skipped, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Member:
    """What is kept of every slice: few bytes, however long the series."""

    place: Place
    shape: tuple[int, int]
    integer: bool


def folder_files(folder: Path) -> FolderFiles:
    """Which files of a folder are DICOM; its subfolders are left alone.

    A file counts by its content. One that is not DICOM counts all the same if its name
    says so, or is like a DICOM neighbour's but for its digits: it is a damaged slice,
    which must not go missing without a word.
    """
    dicom: list[Path] = []
    rest: dict[Path, str] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        if reason := _unusable(path):
            rest[path] = reason
        elif path.name.upper() == "DICOMDIR":
            rest[path] = "a DICOM directory, which lists other files"
        elif path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path):
            dicom.append(path)
        else:
            rest[path] = "no CT image by its name or content"
    shapes = {_shape_of(path) for path in dicom}
    lost = [
        path
        for path in rest
        if not path.name.startswith(".")
        and (path.suffix.lower() in DICOM_SUFFIXES or _shape_of(path) in shapes)
    ]
    others = [Skipped(path=p, reason=r) for p, r in rest.items() if p not in lost]
    return FolderFiles(tuple(sorted(dicom + lost)), tuple(others))


def _unusable(path: Path) -> str:
    """Why a file cannot be looked into, '' if it can."""
    if path.name.startswith("."):
        return "a hidden file"
    if not path.exists():
        return "a link to nothing"
    if not path.is_file():
        return "no regular file"
    return "" if path.stat().st_size else "an empty file"


def _shape_of(path: Path) -> str:
    """A file's name with each number as one sign: 'IM#.dcm'."""
    return re.sub(r"\d+", "#", path.name)


def open_series(folder: Path, options: ReadOptions) -> SliceSource:
    """The CT series in a folder, sorted by position along its normal.

    Reads all headers and the first slice.

    Args:
      folder: its DICOM files, whatever their names.
      options: `series` says which one, if there are several; `gaps` whether its slices
        may be uneven.

    Raises:
      UserError: there is no series, or more than one; or its slices are damaged, have
        different sizes, miss one, or stand twice at one place.
    """
    headers, left_out = ct_headers(folder)
    chosen = _choose(folder, headers, options.series)
    left_out += [
        Skipped(path=path, reason=f"of another series than {options.series!r}")
        for path in headers.keys() - chosen.keys()
    ]
    source = source_of(chosen, folder, gaps=options.gaps)
    return dataclasses.replace(source, left_out=tuple(left_out))


def open_slice(path: Path) -> SliceSource:
    """A single DICOM CT slice, as a volume of one."""
    header = read_header(path)
    if not header.is_ct and header.has_pixels:
        raise UserError(_not_ct(path, header))
    return source_of({path: header}, path, gaps="refuse")


def _not_ct(path: Path, header: DicomHeader) -> str:
    return (
        f"{path}: not CT: its modality is {header.modality or 'not stated'!r}. Only CT "
        "has HU; give a CT series."
    )


def ct_headers(folder: Path) -> tuple[dict[Path, DicomHeader], list[Skipped]]:
    """The headers of a folder's CT slices, and the DICOM files that are none.

    Raises:
      UserError: a slice is damaged, or there is none.
    """
    files = folder_files(folder)
    ct: dict[Path, DicomHeader] = {}
    left_out: list[Skipped] = []
    for path in files.dicom:
        if not path.is_file() or not path.stat().st_size:
            raise UserError(f"{path}: {_unusable(path)} among DICOM slices. {_AGAIN}")
        if not is_dicom(path):
            raise UserError(
                f"{path}: named as a DICOM slice, but its content is none. {_AGAIN}"
            )
        header = read_header(path)
        if not header.complete and (header.is_ct or not header.modality):
            raise UserError(f"{path}: truncated DICOM file. {_AGAIN}")
        if header.has_pixels and header.is_ct:
            ct[path] = header
        elif header.has_pixels:
            reason = f"DICOM of modality {header.modality or 'not stated'!r}, not CT"
            left_out.append(Skipped(path=path, reason=reason))
        else:
            left_out.append(Skipped(path=path, reason="DICOM without pixels"))
    if ct:
        return ct, left_out
    for path in files.dicom:
        if (header := read_header(path)).has_pixels:
            raise UserError(_not_ct(path, header))
    raise UserError(_no_slice(folder))


def _no_slice(folder: Path) -> str:
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    names = ", ".join(path.name for path in files[:5]) or "nothing"
    return (
        f"{folder}: holds no DICOM CT slice (it holds {names}"
        f"{', ...' if len(files) > 5 else ''}). Give the folder of a CT series, or the "
        "path of an image file: .dcm, .nii, .nii.gz, .mha, .mhd, .nrrd, .png."
    )


def first_ct_header(folder: Path) -> DicomHeader:
    """The header of the first CT slice of a folder, by name; see `ct_headers`."""
    for path in folder_files(folder).dicom:
        if path.is_file() and is_dicom(path) and (header := read_header(path)).is_ct:
            return header
    return next(iter(ct_headers(folder)[0].values()))


def _choose(
    folder: Path, headers: Mapping[Path, DicomHeader], series: str
) -> dict[Path, DicomHeader]:
    groups: dict[str, dict[Path, DicomHeader]] = {}
    for path, header in headers.items():
        groups.setdefault(header.series, {})[path] = header
    described = {
        uid: next(iter(group.values())).description for uid, group in groups.items()
    }
    listing = "".join(
        f"\n  {uid}  {described[uid]!r}  {len(group)} slices"
        for uid, group in groups.items()
    )
    if not series:
        if len(groups) == 1:
            return next(iter(groups.values()))
        raise UserError(
            f"{folder}: holds {len(groups)} CT series; name one of them by its UID or "
            f"description, --config.data.series=...:{listing}"
        )
    if series in groups:
        return groups[series]
    wanted = [
        uid
        for uid in groups
        if uid.startswith(series)
        or described[uid].casefold().startswith(series.casefold())
    ]
    exact = [uid for uid in wanted if described[uid].casefold() == series.casefold()]
    match exact or wanted:
        case [uid]:
            return groups[uid]
        case matches:
            raise UserError(
                f"{folder}: {len(matches)} CT series begin with {series!r}; name one "
                f"of:{listing}"
            )


def _member(path: Path, header: DicomHeader) -> _Member:
    """What is kept of a slice, once all is sure that its header can say."""
    if not header.complete:
        raise UserError(f"{path}: truncated DICOM file. {_AGAIN}")
    if not header.has_pixels:
        raise UserError(
            f"{path}: a DICOM file without pixels (a report, a directory or a plan). "
            "Give a CT slice or the folder of a series."
        )
    if header.frames > 1:
        raise UserError(
            f"{path}: multi-frame DICOM ({header.frames} frames), whose frames may "
            "differ in order and rescale. Convert it to single slices or NIfTI first, "
            "for instance with dcm2niix."
        )
    data = header.dataset
    rescale = number_of(data, "RescaleSlope", 1), number_of(data, "RescaleIntercept", 0)
    shape = number_of(data, "Rows", 0), number_of(data, "Columns", 0)
    _check_pixels(path, header)
    return _Member(
        place=place_of(path, data),
        shape=(int(shape[0]), int(shape[1])),
        integer=all(value.is_integer() for value in map(float, rescale)),
    )


def _check_pixels(path: Path, header: DicomHeader) -> None:
    data = header.dataset
    photometric = text_of(data, "PhotometricInterpretation") or "MONOCHROME2"
    samples = number_of(data, "SamplesPerPixel", 1)
    if samples != 1 or photometric != "MONOCHROME2":
        raise UserError(
            f"{path}: {photometric} with {samples:g} values a pixel; CT slices have "
            "one grey value (MONOCHROME2). Give the original series, not a screenshot."
        )
    kind = text_of(data, "RescaleType")
    if kind not in ("", "HU", "US"):
        raise UserError(
            f"{path}: its pixels are {kind!r} (RescaleType), not HU. Give the HU "
            "series."
        )
    if {"LOCALIZER", "SCOUT"} & set(text_of(data, "ImageType").upper().split("\\")):
        raise UserError(
            f"{path}: a localizer (ImageType {text_of(data, 'ImageType')!r}), whose "
            "pixels are sums along rays, not HU. Leave it out."
        )
    if number_of(data, "RescaleSlope", 1.0) == 0.0:
        raise UserError(f"{path}: RescaleSlope is 0; every pixel would be the same.")
    bits = number_of(data, "BitsAllocated", 16.0)
    rows, columns = number_of(data, "Rows", 0.0), number_of(data, "Columns", 0.0)
    want, there = int(rows * columns * bits / 8), header.pixel_bytes or 0
    if not rows * columns:
        raise UserError(f"{path}: states no Rows and Columns. {_AGAIN}")
    if not header.is_packed and there < want:
        raise UserError(
            f"{path}: truncated: {there} bytes of pixels where {rows:g} x {columns:g} "
            f"pixels of {bits:g} bits need {want}. {_AGAIN}"
        )


def _read(path: Path) -> Slice:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    header = read_header(path)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(
            f"{path}: SimpleITK cannot read its pixels (transfer syntax "
            f"{header.transfer_syntax}): {reason(error)}. {_AGAIN}"
        ) from error
    stored = sitk.GetArrayFromImage(image)[0]
    check_finite(stored, name=str(path))
    _mark_lossy(header)
    hu = pad(stored, padding_of(header.dataset, path))
    return Slice(hu=hu, stored=stored, header=header.dataset)


def _mark_lossy(header: DicomHeader) -> None:
    """Says in the header that pixels went through a lossy transfer syntax."""
    method = LOSSY_METHODS.get(header.transfer_syntax)
    data = header.dataset
    if method is None or text_of(data, "LossyImageCompression") == "01":
        return
    bits = number_of(data, "BitsAllocated", 16.0)
    whole = number_of(data, "Rows", 0.0) * number_of(data, "Columns", 0.0) * bits / 8
    data.LossyImageCompression = "01"
    data.LossyImageCompressionMethod = method
    data.LossyImageCompressionRatio = f"{whole / max(header.pixel_bytes or 1, 1):.2f}"


def reason(error: RuntimeError) -> str:
    """The last line of a SimpleITK error, which is the one that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ").removeprefix("sitk::ERROR: ")


def source_of(
    headers: Mapping[Path, DicomHeader], source: Path, *, gaps: Gaps
) -> SliceSource:
    """Slices as a volume, in the order of their positions.

    Args:
      headers: of the slices, by file.
      source: the folder or file that the volume is named after.
      gaps: whether uneven stacks are refused.

    Raises:
      UserError: they are no stack of CT slices.
    """
    members = {path: _member(path, header) for path, header in headers.items()}
    _check_sizes(list(members.values()))
    found = stack([m.place for m in members.values()], source, gaps=gaps)
    first = found.places[0]
    pixel_mm = first.pixel_mm or (1.0, 1.0)
    _report(headers[first.path], found.uneven, first, source)
    x, y, z = (float(mm) for mm in first.position_mm)
    located = first.origin_mm is not None
    opened = headers[first.path].dataset
    return SliceSource(
        shape=(len(found.places), *members[first.path].shape),
        read=lambda index: _read(found.places[index].path),
        spacing_mm=(found.gap_mm or pixel_mm[0], *pixel_mm),
        direction=tuple(float(v) for v in first.direction.ravel()),
        origin_mm=(x, y, z),
        positions_mm=np.stack([place.position_mm for place in found.places]),
        uneven=found.uneven,
        header=opened,
        spacing_known=first.pixel_mm is not None,
        spacing_stated=first.pixel_mm is not None,
        positions_known=located,
        name=source.resolve().name if source.is_dir() else source.stem,
        format="dicom-series" if source.is_dir() else "dicom",
        paths=tuple(place.path for place in found.places),
        integer=all(member.integer for member in members.values()),
    )


def _check_sizes(members: Sequence[_Member]) -> None:
    first = members[0]
    for other in members[1:]:
        if other.shape != first.shape:
            raise UserError(
                f"{other.place.path}: mixed sizes (rows, columns) in one series: "
                f"{other.shape} here, {first.shape} in {first.place.path.name}. Keep "
                "slices of one kind in the folder."
            )


def _report(header: DicomHeader, uneven: str, first: Place, source: Path) -> None:
    """Logs what a reader should know of a series that is read all the same."""
    data = header.dataset
    if uneven:
        logging.info("%s: uneven slices: %s", source, uneven)
    if not text_of(data, "RescaleIntercept"):
        logging.warning("%s: no RescaleIntercept; stored values taken as HU", source)
    if first.cosines is None:
        logging.warning(
            "%s: no usable ImageOrientationPatient; slices taken as axial", source
        )
    if first.pixel_mm is None:
        logging.warning(
            "%s: no usable PixelSpacing; what is in mm needs --config.data.pixel_mm",
            source,
        )
    padding = padding_of(data, first.path)
    if padding is not None and not padding.believed:
        logging.warning(
            "%s: PixelPaddingValue marks %g to %g HU, where tissue lies; not taken for "
            "padding",
            *(source, padding.low, padding.high),
        )

"""Reads DICOM CT series and slices to HU: headers by pydicom, pixels by SimpleITK.

Every slice is read separately, so that its own rescale slope, intercept and padding
values apply, and errors can name its file.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from absl import logging
from pydicom import Dataset
from pydicom.uid import UID

from common.errors import UserError
from ipv2.ct_io.dicom_geometry import Place, place_of, stack
from ipv2.ct_io.dicom_header import (
    COPY_AGAIN,
    LOSSY_METHODS,
    DicomHeader,
    is_dicom,
    number_of,
    read_header,
    text_of,
)
from ipv2.ct_io.dicom_padding import PaddingRange, pad, padding_of
from ipv2.ct_io.formats import last_line
from ipv2.ct_io.frame_splitting import Frame, split_frames
from ipv2.ct_io.tube_current import Exposures, exposures_of, relative_current
from ipv2.ct_io.volume import (
    Gaps,
    ReadOptions,
    Skipped,
    Slice,
    SliceSource,
    check_finite,
)

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")


class FolderFiles(NamedTuple):
    """The files of a folder, sorted by name.

    Attributes:
      dicom: DICOM files, and files that should be DICOM by their names.
      others: all other files, with the reason.
    """

    dicom: tuple[Path, ...]
    others: tuple[Skipped, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    """A CT file in few bytes, so that a long series needs little memory.

    Attributes:
      place: file and place of the slice.
      series: SeriesInstanceUID.
      description: SeriesDescription.
      shape: (rows, columns).
      integer: whether HU are whole numbers.
      multi_frame: whether it holds frames, each of which is a slice.
      problem: why it is no slice in HU, '' if it is one.
      exposures: exposure attributes of the slice.
      frame: for a slice split from a multi-frame object, its frame.
    """

    place: Place
    series: str
    description: str
    shape: tuple[int, int]
    integer: bool
    multi_frame: bool
    problem: str
    exposures: Exposures
    frame: Frame | None

    @property
    def path(self) -> Path:
        """File of the slice."""
        return self.place.path


def folder_files(folder: Path) -> FolderFiles:
    """Returns the DICOM files of a folder and its other files, without subfolders.

    A file counts by its content. A file without DICOM content counts too if its suffix
    is that of DICOM, or if its name differs from a DICOM neighbour's only in digits: it
    is a damaged slice, which must not be ignored silently.
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
    """Returns why a file cannot be opened, '' if it can."""
    if path.name.startswith("."):
        return "a hidden file"
    if not path.exists():
        return "a link to nothing"
    if not path.is_file():
        return "no regular file"
    return "" if path.stat().st_size else "an empty file"


def _shape_of(path: Path) -> str:
    """Returns a file's name with each number replaced by one sign: 'IM#.dcm'."""
    return re.sub(r"\d+", "#", path.name)


def open_series(folder: Path, options: ReadOptions, scratch: Path) -> SliceSource:
    """Opens the CT series in a folder, sorted by position along its normal.

    Reads all headers. A multi-frame file counts as its frames.

    Args:
      folder: folder of DICOM files with any names.
      options: `series` selects one of several series; `gaps` states whether its slices
        may be uneven.
      scratch: folder for the frames of multi-frame files.

    Raises:
      UserError: There is no series, or more than one; or slices are damaged, missing,
        of different sizes, or at the same position.
    """
    entries, left_out = _ct_entries(folder)
    chosen = _choose(folder, entries, options.series)
    left_out += [
        Skipped(path=one.path, reason=f"of another series than {options.series!r}")
        for one in entries
        if one not in chosen
    ]
    source = _source(chosen, folder, scratch, gaps=options.gaps)
    return dataclasses.replace(source, left_out=tuple(left_out))


def open_file(path: Path, options: ReadOptions, scratch: Path) -> SliceSource:
    """Opens a DICOM CT file: a slice, or the frames of a multi-frame object.

    Arguments and errors are those of `open_series`.
    """
    header = read_header(path)
    if not header.is_ct and header.has_pixels:
        raise UserError(_not_ct(path, header))
    return _source([_entry(path, header, str(path))], path, scratch, gaps=options.gaps)


def _not_ct(path: Path, header: DicomHeader) -> str:
    return (
        f"{path}: not CT: its modality is {header.modality or 'not stated'!r}. Only CT "
        "has HU; give a CT series."
    )


def _ct_entries(folder: Path) -> tuple[list[_Entry], list[Skipped]]:
    """Returns a folder's CT files, and its other DICOM files.

    Raises:
      UserError: A file is damaged, or there is no CT.
    """
    files = folder_files(folder)
    entries: list[_Entry] = []
    left_out: list[Skipped] = []
    others: list[str] = []
    for path in files.dicom:
        header = _whole_header(path)
        if header.has_pixels and header.is_ct:
            entries.append(_entry(path, header, str(path)))
        elif header.has_pixels:
            reason = f"DICOM of modality {header.modality or 'not stated'!r}, not CT"
            left_out.append(Skipped(path=path, reason=reason))
            others.append(_not_ct(path, header))
        else:
            left_out.append(Skipped(path=path, reason="DICOM without pixels"))
    if not entries:
        raise UserError(others[0] if others else _no_slice(folder))
    return entries, left_out


def _whole_header(path: Path) -> DicomHeader:
    """Reads the header of a file that should be DICOM; UserError if it is damaged."""
    if not path.is_file() or not path.stat().st_size:
        raise UserError(f"{path}: {_unusable(path)} among DICOM slices. {COPY_AGAIN}")
    if not is_dicom(path):
        raise UserError(
            f"{path}: named as a DICOM slice, but its content is none. {COPY_AGAIN}"
        )
    header = read_header(path)
    if not header.complete and (header.is_ct or not header.modality):
        raise UserError(f"{path}: truncated DICOM file. {COPY_AGAIN}")
    return header


def _no_slice(folder: Path) -> str:
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    names = ", ".join(path.name for path in files[:5]) or "nothing"
    return (
        f"{folder}: holds no DICOM CT slice (it holds {names}"
        f"{', ...' if len(files) > 5 else ''}). Give the folder of a CT series, or the "
        "path of an image file: .dcm, .nii, .nii.gz, .mha, .mhd, .nrrd, .png."
    )


def first_ct_header(folder: Path) -> DicomHeader:
    """Reads the header of the first CT slice of a folder, by name.

    Raises:
      UserError: A file before it is damaged, or there is none.
    """
    for path in folder_files(folder).dicom:
        if (header := _whole_header(path)).is_ct:
            return header
    raise UserError(_no_slice(folder))


def _choose(folder: Path, entries: Sequence[_Entry], series: str) -> list[_Entry]:
    groups: dict[str, list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.series, []).append(entry)
    described = {uid: group[0].description for uid, group in groups.items()}
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


def _entry(
    path: Path, header: DicomHeader, name: str, frame: Frame | None = None
) -> _Entry:
    """Returns the entry of a file, with the reason if it is no slice in HU."""
    rescale = (
        number_of(header.dataset, "RescaleSlope", 1.0),
        number_of(header.dataset, "RescaleIntercept", 0.0),
    )
    shape = (
        number_of(header.dataset, "Rows", 0),
        number_of(header.dataset, "Columns", 0),
    )
    return _Entry(
        place=place_of(path, header.dataset, name=name),
        series=header.series,
        description=header.description,
        shape=(int(shape[0]), int(shape[1])),
        integer=all(value.is_integer() for value in rescale),
        multi_frame=header.is_multi_frame,
        problem="" if header.is_multi_frame else _problem(name, header),
        exposures=exposures_of(header.dataset),
        frame=frame,
    )


def _problem(name: str, header: DicomHeader) -> str:
    """Returns why a file's pixels are not HU of one slice, '' if they may be."""
    data = header.dataset
    if not header.complete:
        return f"{name}: truncated DICOM file. {COPY_AGAIN}"
    if not header.has_pixels:
        return (
            f"{name}: a DICOM file without pixels (a report, a directory or a plan). "
            "Give a CT slice or the folder of a series."
        )
    photometric = text_of(data, "PhotometricInterpretation") or "MONOCHROME2"
    samples = number_of(data, "SamplesPerPixel", 1)
    if samples != 1 or photometric != "MONOCHROME2":
        return (
            f"{name}: {photometric} with {samples:g} values per pixel; CT slices have "
            "one grey value (MONOCHROME2). Give the original series, not a screenshot."
        )
    kind = text_of(data, "RescaleType")
    if kind not in ("", "HU", "US"):
        return (
            f"{name}: its pixels are {kind!r} (RescaleType), not HU. Give the HU "
            "series."
        )
    if {"LOCALIZER", "SCOUT"} & set(text_of(data, "ImageType").upper().split("\\")):
        return (
            f"{name}: a localizer (ImageType {text_of(data, 'ImageType')!r}), whose "
            "pixels are sums along rays, not HU. Leave it out."
        )
    if number_of(data, "RescaleSlope", 1.0) == 0.0:
        return f"{name}: RescaleSlope is 0; every pixel would be the same."
    return _shortage(name, header)


def _shortage(name: str, header: DicomHeader) -> str:
    """Describes missing pixels; '' if there are none."""
    data = header.dataset
    bits = number_of(data, "BitsAllocated", 16.0)
    rows, columns = number_of(data, "Rows", 0.0), number_of(data, "Columns", 0.0)
    want, there = int(rows * columns * bits / 8), header.pixel_bytes or 0
    if not rows * columns:
        return f"{name}: states no Rows and Columns. {COPY_AGAIN}"
    if not header.is_packed and there < want:
        return (
            f"{name}: truncated: {there} bytes of pixels where {rows:g} x {columns:g} "
            f"pixels of {bits:g} bits need {want}. {COPY_AGAIN}"
        )
    return ""


def _read(
    place: Place,
    frames: Mapping[Path, Frame],
    on_doubtful_padding: Callable[[Place, PaddingRange], None],
) -> Slice:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(place.path))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    header = _read_frame_header(place.path, frames)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(
            f"{place.name}: SimpleITK cannot read its pixels (transfer syntax "
            f"{header.transfer_syntax}): {last_line(error)}. They are damaged, or the "
            f"header breaks the standard. {COPY_AGAIN}"
        ) from error
    stored = sitk.GetArrayFromImage(image)[0]
    check_finite(stored, name=place.name)
    _mark_lossy(header)
    padding = padding_of(header.dataset, name=place.name)
    if padding is not None and not padding.is_believed(stored):
        on_doubtful_padding(place, padding)
        padding = None
    return Slice(hu=pad(stored, padding), stored=stored, header=header.dataset)


def _padding_logger(source: Path) -> Callable[[Place, PaddingRange], None]:
    """Returns a function that logs the first doubtful padding of a series."""
    logged = False

    def log_first(place: Place, padding: PaddingRange) -> None:
        nonlocal logged
        if not logged:
            logging.warning(
                "%s: PixelPaddingValue marks %g to %g HU, which lie among the values "
                "of tissue (%s); not taken for padding",
                *(source, padding.low, padding.high, place.short_name),
            )
        logged = True

    return log_first


def _mark_lossy(header: DicomHeader) -> None:
    """Records in the header that the pixels passed a lossy transfer syntax."""
    method = LOSSY_METHODS.get(header.transfer_syntax)
    data = header.dataset
    if method is None or text_of(data, "LossyImageCompression") == "01":
        return
    bits = number_of(data, "BitsAllocated", 16.0)
    whole = number_of(data, "Rows", 0.0) * number_of(data, "Columns", 0.0) * bits / 8
    data.LossyImageCompression = "01"
    data.LossyImageCompressionMethod = method
    data.LossyImageCompressionRatio = f"{whole / max(header.pixel_bytes or 1, 1):.2f}"


def _source(
    entries: Sequence[_Entry], source: Path, scratch: Path, *, gaps: Gaps
) -> SliceSource:
    """Returns the files of one series as a volume, slices sorted by position.

    Args:
      entries: entries of the files.
      source: folder or file that names the volume.
      scratch: folder for the frames of multi-frame files.
      gaps: whether to refuse uneven stacks.

    Raises:
      UserError: The files are no stack of CT slices.
    """
    entries = [slice_ for one in entries for slice_ in _slices_of(one, scratch)]
    for entry in entries:
        if entry.problem:
            raise UserError(entry.problem)
    _check_sizes(entries)
    found = stack([one.place for one in entries], source, gaps=gaps)
    first = found.places[0]
    pixel_mm = first.pixel_mm or (1.0, 1.0)
    frames = {one.path: one.frame for one in entries if one.frame is not None}
    exposures = {one.path: one.exposures for one in entries}
    header = _read_frame_header(first.path, frames).dataset
    _report(header, found.uneven, first, source)
    log_padding = _padding_logger(source)
    x, y, z = (float(mm) for mm in first.position_mm)
    return SliceSource(
        shape=(len(found.places), *entries[0].shape),
        read=lambda index: _read(found.places[index], frames, log_padding),
        spacing_mm=(found.gap_mm or pixel_mm[0], *pixel_mm),
        direction=tuple(float(v) for v in first.direction.ravel()),
        origin_mm=(x, y, z),
        positions_mm=np.stack([place.position_mm for place in found.places]),
        uneven=found.uneven,
        header=header,
        spacing_known=first.pixel_mm is not None,
        spacing_stated=first.pixel_mm is not None,
        positions_known=first.origin_mm is not None,
        name=source.resolve().name if source.is_dir() else source.stem,
        format="dicom-series" if source.is_dir() or frames else "dicom",
        paths=tuple(place.path for place in found.places),
        integer=all(entry.integer for entry in entries),
        relative_current=relative_current(
            [exposures[place.path] for place in found.places]
        ),
    )


def _slices_of(entry: _Entry, scratch: Path) -> list[_Entry]:
    """Returns a file's slices: itself, or its frames if it is multi-frame."""
    if not entry.multi_frame:
        return [entry]
    folder = scratch / entry.path.name
    folder.mkdir()
    return [
        _entry(
            frame.path,
            read_header(frame.path),
            f"{entry.path}, frame {frame.number}",
            frame,
        )
        for frame in split_frames(entry.path, folder)
    ]


def _read_frame_header(path: Path, frames: Mapping[Path, Frame]) -> DicomHeader:
    """Reads a slice's header; that of a frame refers to the multi-frame object."""
    header = read_header(path)
    if (frame := frames.get(path)) is not None:
        header.dataset.SOPClassUID = UID(frame.source_class)
        header.dataset.SOPInstanceUID = UID(frame.source_instance)
        header.dataset.ReferencedFrameNumber = frame.number
    return header


def _check_sizes(entries: Sequence[_Entry]) -> None:
    first = entries[0]
    for other in entries[1:]:
        if other.shape != first.shape:
            raise UserError(
                f"{other.place.name}: mixed sizes (rows, columns) in one series: "
                f"{other.shape} here, {first.shape} in {first.place.short_name}. Keep "
                "slices of one kind in the folder."
            )


def _report(data: Dataset, uneven: str, first: Place, source: Path) -> None:
    """Logs the faults of a series that is read nevertheless."""
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

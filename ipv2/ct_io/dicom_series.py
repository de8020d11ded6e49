"""DICOM CT series and slices to HU, on SimpleITK.

Every slice is read on its own, for three reasons: its own rescale slope and intercept
apply, its own padding values are known, and an error can name its file.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from absl import logging
from pydicom.charset import python_encoding

from common.errors import UserError
from ipv2.ct_io.dicom_header import CT_STORAGE, DicomHeader, is_dicom, read_header
from ipv2.ct_io.volume import PADDING_HU, Slice, SliceSource, check_finite

_AGAIN = "Copy the file again from its source, or remove it."


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    """What is kept of every slice: few bytes, however long the series."""

    path: Path
    shape: tuple[int, int]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    origin: tuple[float, ...]
    integer: bool
    thickness: float

    @property
    def where(self) -> float:
        """Position along the slice's normal, mm."""
        return float(np.dot(self.origin, np.reshape(self.direction, (3, 3))[:, 2]))


def open_series(folder: Path, *, series: str | None) -> SliceSource:
    """The CT series in a folder, sorted by position along its normal.

    Reads all headers and the first slice.

    Args:
      folder: its DICOM files, whatever their names; other files are left alone.
      series: which one, if there are several: its SeriesInstanceUID, or the beginning
        of that or of its SeriesDescription, if only one begins so.

    Raises:
      UserError: there is no series, or more than one; or its slices are damaged, have
        different sizes, miss one, or stand twice at one place.
    """
    headers = ct_headers(folder)
    chosen = _choose(folder, headers, series)
    return _stack([_place(path, header) for path, header in chosen.items()], folder)


def open_slice(path: Path) -> SliceSource:
    """A single DICOM CT slice, as a volume of one."""
    header = read_header(path)
    if not _is_ct(header) and header.has_pixels:
        raise UserError(_not_ct(path, header))
    return _stack([_place(path, header)], path)


def _is_ct(header: DicomHeader) -> bool:
    return header.modality == "CT" or (
        not header.modality and header.sop_class in CT_STORAGE
    )


def _not_ct(path: Path, header: DicomHeader) -> str:
    return (
        f"{path}: not CT: its modality is {header.modality or 'not stated'!r}. Only CT "
        "has HU; give a CT series."
    )


def ct_headers(folder: Path) -> dict[Path, DicomHeader]:
    """The headers of a folder's CT slices; raises UserError if it has none."""
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.stat().st_size
    ]
    headers = {path: read_header(path) for path in files if is_dicom(path)}
    ct: dict[Path, DicomHeader] = {}
    others: list[str] = []
    for path, header in headers.items():
        if not header.complete and (_is_ct(header) or not header.modality):
            raise UserError(f"{path}: truncated DICOM file. {_AGAIN}")
        if header.has_pixels and _is_ct(header):
            ct[path] = header
        elif header.has_pixels:
            others.append(_not_ct(path, header))
        else:
            logging.info("%s: DICOM without pixels, left alone", path)
    if ct:
        return ct
    if others:
        raise UserError(others[0])
    names = ", ".join(path.name for path in files[:5]) or "nothing"
    raise UserError(
        f"{folder}: holds no DICOM CT slice (it holds {names}"
        f"{', ...' if len(files) > 5 else ''}). Give the folder of a CT series, or the "
        "path of an image file: .dcm, .nii, .nii.gz, .mha, .mhd, .nrrd, .png."
    )


def first_ct_header(folder: Path) -> DicomHeader:
    """The header of the first CT slice of a folder, by name; see `ct_headers`."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_dicom(path) and _is_ct(header := read_header(path)):
            return header
    return next(iter(ct_headers(folder).values()))


def _choose(
    folder: Path, headers: Mapping[Path, DicomHeader], series: str | None
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
    if series is None:
        if len(groups) == 1:
            return next(iter(groups.values()))
        raise UserError(
            f"{folder}: holds {len(groups)} CT series; name one of them by its UID or "
            f"description (the `series` key):{listing}"
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


def _place(path: Path, header: DicomHeader) -> _Place:
    """A slice's place in the series, once all is sure that the header can say."""
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
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
        tags = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        _check_pixels(path, header, tags, reader.GetNumberOfComponents())
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    columns, rows = reader.GetSize()[:2]
    thickness = _number(tags, "0018|0050", 0.0)
    return _Place(
        path=path,
        shape=(rows, columns),
        spacing=reader.GetSpacing(),
        direction=reader.GetDirection(),
        origin=reader.GetOrigin(),
        integer=reader.GetPixelID() not in (sitk.sitkFloat32, sitk.sitkFloat64),
        thickness=_number(tags, "0018|0088", thickness) or thickness,
    )


def _read(place: _Place) -> Slice:
    reader = _reader(place.path)
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(place.path, error) from error
    tags = _decoded({key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()})
    stored = sitk.GetArrayFromImage(image)[0]
    check_finite(stored, name=str(place.path))
    return Slice(hu=_pad(stored, tags, place.path), stored=stored, tags=tags)


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _unreadable(path: Path, error: RuntimeError) -> UserError:
    syntax = read_header(path).transfer_syntax
    return UserError(
        f"{path}: SimpleITK cannot read its pixels (transfer syntax {syntax}): "
        f"{reason(error)}. {_AGAIN}"
    )


def reason(error: RuntimeError) -> str:
    """The last line of a SimpleITK error, which is the one that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ").removeprefix("sitk::ERROR: ")


def _number(tags: Mapping[str, str], key: str, default: float) -> float:
    text = tags.get(key, "").strip(" \0")
    try:
        return float(text.split("\\")[0]) if text else default
    except ValueError as error:
        raise UserError(
            f"DICOM tag ({key.replace('|', ',')}) should be a number, got {text!r}. "
            "Repair the tag, or export the series again."
        ) from error


def _check_pixels(
    path: Path, header: DicomHeader, tags: Mapping[str, str], components: int
) -> None:
    photometric = tags.get("0028|0004", "MONOCHROME2").strip()
    if components != 1 or photometric != "MONOCHROME2":
        raise UserError(
            f"{path}: {photometric} with {components} values a pixel; CT slices have "
            "one grey value (MONOCHROME2). Give the original series, not a screenshot."
        )
    kind = tags.get("0028|1054", "").strip()
    if kind not in ("", "HU", "US"):
        raise UserError(
            f"{path}: its pixels are {kind!r} (RescaleType), not HU. Give the "
            "HU series."
        )
    if _number(tags, "0028|1053", 1.0) == 0.0:
        raise UserError(f"{path}: RescaleSlope is 0; every pixel would be the same.")
    if "0028|1052" not in tags:
        logging.warning("%s: no RescaleIntercept; stored values taken as HU", path)
    bits = _number(tags, "0028|0100", 16.0)
    rows, columns = (_number(tags, f"0028|001{i}", 0.0) for i in (0, 1))
    want = int(rows * columns * bits / 8)
    if header.pixel_bytes is not None and header.pixel_bytes < want:
        raise UserError(
            f"{path}: truncated: {header.pixel_bytes} bytes of pixels where {rows:g} x "
            f"{columns:g} pixels of {bits:g} bits need {want}. {_AGAIN}"
        )


def _decoded(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as text: SimpleITK hands over raw bytes, in the file's character set."""
    charset = tags.get("0008|0005", "").split("\\")[-1].strip()
    codec = python_encoding.get(charset, "utf_8")
    return {
        key: value.encode("utf_8", "surrogateescape").decode(codec, "replace")
        for key, value in tags.items()
    }


def _pad(hu: np.ndarray, tags: Mapping[str, str], path: Path) -> np.ndarray:
    """Pixels outside the field of view set to PADDING_HU.

    PixelPaddingValue (to PixelPaddingRangeLimit) is a stored value, before rescale.
    """
    if not tags.get("0028|0120", "").strip():
        return pad_low(hu)
    slope, intercept = (
        _number(tags, "0028|1053", 1.0),
        _number(tags, "0028|1052", 0.0),
    )
    bits = int(_number(tags, "0028|0100", 16.0))
    signed = _number(tags, "0028|0103", 0.0) == 1.0

    def stored(text: str) -> int:
        # The tag's own sign is ambiguous (US or SS): it wraps to the pixels' sign.
        value = int(text) % (1 << bits)
        return value - (1 << bits) if signed and value >> (bits - 1) else value

    try:
        value = stored(tags["0028|0120"])
        limit = stored(tags.get("0028|0121", "").strip() or tags["0028|0120"])
    except ValueError as error:
        raise UserError(
            f"{path}: PixelPaddingValue {tags['0028|0120']!r} and "
            f"PixelPaddingRangeLimit {tags.get('0028|0121', '')!r} should be integers. "
            "Repair the tags."
        ) from error
    pixels = np.rint((hu - intercept) / slope)
    outside = (pixels >= min(value, limit)) & (pixels <= max(value, limit))
    return pad_low(np.where(outside, np.float32(PADDING_HU), hu))


def pad_low(hu: np.ndarray) -> np.ndarray:
    """HU of -2000 and less set to PADDING_HU.

    Scanners mark the outside of the field of view with -2000, -2048, -3024, -3072; no
    tissue, and no noise around air worth its name, lies there. Values between -2000
    and -1024 are noise of real air and stay.
    """
    return np.where(hu <= -2000.0, np.float32(PADDING_HU), hu)


def _stack(places: Sequence[_Place], source: Path) -> SliceSource:
    for other in places[1:]:
        _check_alike(places[0], other)
    places = sorted(places, key=lambda place: place.where)
    gap = _slice_gap(places, source)
    first = places[0]
    folder = source.is_dir()
    return SliceSource(
        shape=(len(places), *first.shape),
        read=lambda index: _read(places[index]),
        spacing_mm=(gap, first.spacing[1], first.spacing[0]),
        direction=first.direction,
        origin_mm=(first.origin[0], first.origin[1], first.origin[2]),
        tags=_read(first).tags,
        name=source.resolve().name if folder else source.stem,
        format="dicom-series" if folder else "dicom",
        paths=tuple(place.path for place in places),
        integer=all(place.integer for place in places),
    )


def _check_alike(first: _Place, other: _Place) -> None:
    for what, a, b, near in (
        ("sizes (rows, columns)", first.shape, other.shape, 0.0),
        ("pixel spacings (mm)", first.spacing[:2], other.spacing[:2], 1e-4),
        # Cosines are text of some six digits.
        ("orientations", first.direction, other.direction, 1e-3),
    ):
        if not np.allclose(a, b, rtol=0, atol=near):
            raise UserError(
                f"{other.path}: mixed {what} in one series: {b} here, {a} in "
                f"{first.path.name}. Keep slices of one kind in the folder."
            )


def _slice_gap(slices: Sequence[_Place], source: Path) -> float:
    """Distance between slices, mm, once it is sure that none is missing."""
    if len(slices) == 1:
        return slices[0].thickness or slices[0].spacing[2]
    gaps = np.diff([s.where for s in slices])
    typical = float(np.median(gaps))
    for (low, high), gap in zip(itertools.pairwise(slices), gaps, strict=True):
        between = (
            f"{source}: between {low.path.name} ({low.where:.2f} mm) and "
            f"{high.path.name} ({high.where:.2f} mm)"
        )
        if gap < 1e-3:
            raise UserError(
                f"{source}: {low.path.name} and {high.path.name} stand at the same "
                f"position ({low.where:.2f} mm along the normal). Keep one of them, or "
                "split the folder if it holds several phases."
            )
        if gap > 1.5 * typical:
            raise UserError(
                f"{between}: about {round(gap / typical) - 1} slices missing (step "
                f"{gap:.2f} mm, elsewhere {typical:.2f} mm). Add them, or keep only "
                "the slices on one side."
            )
        # Positions rounded to 0.1 mm at 0.5 mm steps are off by 20 %.
        if abs(gap - typical) > 0.25 * typical:
            raise UserError(
                f"{between}: irregular step {gap:.2f} mm, elsewhere {typical:.2f} mm; "
                "slices are missing or two series are mixed. Keep one regular series."
            )
    first, last = slices[0], slices[-1]
    normal = np.reshape(first.direction, (3, 3))[:, 2]
    shift = np.subtract(last.origin, first.origin)
    sideways = float(np.linalg.norm(shift - np.dot(shift, normal) * normal))
    if sideways > max(first.spacing[0], first.spacing[1]):
        raise UserError(
            f"{source}: the slices are sheared: the last one is {sideways:.1f} mm "
            "beside the normal of the first (a tilted gantry). Resample the series "
            "upright."
        )
    return float(gaps.mean())

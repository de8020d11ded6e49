"""Builds TFDS datasets of CIFAR's test images from the published archives.

TFDS's builders read the archives with TensorFlow. These builders do not need it, and
build no training images. A. Krizhevsky, Learning multiple layers of features from tiny
images, 2009; https://www.cs.toronto.edu/~kriz/cifar.html
"""

import dataclasses
import hashlib
import io
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from common.errors import UserError
from common.files import replacing
from common.progress import tracked

_PIXELS = 3 * 32 * 32
_NO_ANSWER_SECONDS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive of CIFAR.

    Attributes:
      file: Its name.
      sha256: Of the file.
      member: File of the test images in it.
      label_bytes: Number of bytes before each image; the last one is the class.
      classes: Number of classes.
    """

    file: str
    sha256: str
    member: str
    label_bytes: int
    classes: int

    @property
    def url(self) -> str:
        """Address of the archive."""
        return f"https://www.cs.toronto.edu/~kriz/{self.file}"


ARCHIVES = MappingProxyType(
    {
        "cifar10": Archive(
            file="cifar-10-binary.tar.gz",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            member="cifar-10-batches-bin/test_batch.bin",
            label_bytes=1,
            classes=10,
        ),
        "cifar100": Archive(
            file="cifar-100-binary.tar.gz",
            sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            member="cifar-100-binary/test.bin",
            label_bytes=2,
            classes=100,
        ),
    }
)


class CifarTest(tfds.core.GeneratorBasedBuilder):
    """The test images of CIFAR-10 or CIFAR-100, in the archive's order."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ARCHIVES]  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        archive = ARCHIVES[self.builder_config.name]
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(num_classes=archive.classes),
                }
            ),
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # Offline, it tries for minutes before it fails.
        archive = ARCHIVES[self.builder_config.name]
        path = fetch_archive(archive, Path(self._data_dir_root) / "downloads")
        return {"test": self._generate_examples(archive, path)}

    def _generate_examples(
        self, archive: Archive, path: Path
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = read_rows(archive, path)
        for index, row in enumerate(tracked(rows, archive.file)):
            pixels = row[archive.label_bytes :].reshape(3, 32, 32).transpose(1, 2, 0)
            yield (
                index,
                {
                    "image": _png(pixels),
                    "label": int(row[archive.label_bytes - 1]),
                },
            )


def read_rows(archive: Archive, path: Path) -> np.ndarray:
    """Returns the test images of an archive, each as a row of labels and pixels."""
    with tarfile.open(path) as tar:
        member = tar.extractfile(archive.member)
        if member is None:
            raise ValueError(f"{path}: {archive.member} is not a file")
        content = np.frombuffer(member.read(), np.uint8)
    return content.reshape(-1, archive.label_bytes + _PIXELS)


def fetch_archive(archive: Archive, folder: Path) -> Path:
    """Returns the path of the archive; downloads it if the folder does not hold it.

    Raises:
      UserError: It cannot be downloaded, or is not the published file.
    """
    path = folder / archive.file
    if not path.exists():
        logging.info("fetching %s (170 MB)", archive.url)
        try:
            _download(archive.url, path)
        except (urllib.error.URLError, OSError) as error:
            raise UserError(
                f"config.eval.dataset: {archive.url} cannot be fetched: {error}. Fetch "
                f"it on a machine with a network and put it at {path}, or give "
                "config.eval.path: an .npz with images and labels, or a folder with a "
                "subfolder of images for each class."
            ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        raise UserError(
            f"{path}: not the published file: its SHA-256 is {found}, expected "
            f"{archive.sha256}. Remove it to fetch it again."
        )
    return path


def _download(url: str, path: Path) -> None:
    with (
        urllib.request.urlopen(url, timeout=_NO_ANSWER_SECONDS) as answer,
        replacing(path) as temporary,
        temporary.open("wb") as file,
    ):
        shutil.copyfileobj(answer, file)


def _png(pixels: np.ndarray) -> io.BytesIO:
    """Returns a PNG file; TFDS would use TensorFlow to make one."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    file.seek(0)
    return file

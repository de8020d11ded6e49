"""Opens TFDS datasets as evaluation data, without TensorFlow."""

import functools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32

from acq.datasets.cifar_archive import ARCHIVES, CifarTest
from acq.datasets.decoding import Framing, StoredImages, read_image
from acq.datasets.settings import SPLITS
from common.dataset import load_split, prepare
from common.devices import is_first_process, wait_for_all
from common.errors import UserError
from common.pipeline import Source, read_ahead
from common.progress import Progress

_INFO = "dataset_info.json"
_CHUNK = 256


def is_prepared_folder(folder: Path) -> bool:
    """Returns whether a folder is a dataset that TFDS prepared."""
    return (folder / _INFO).is_file()


def open_dataset(
    name: str, split: str, framing: Framing, *, cache: str, limit: int = 0
) -> tuple[StoredImages, Int32[np.ndarray, "n"], int]:
    """Returns a dataset's images, not decoded yet, labels, and number of classes.

    It looks in the cache and in TFDS's folder of datasets. If neither holds the
    dataset, CIFAR's test images are downloaded into the cache. All processes must call
    this together.

    Args:
      name: One of SPLITS.
      split: A split's name, or TFDS's slice of one; '' for the default.
      framing: Size and channels for the classifier.
      cache: The folder of datasets; '' for that of TFDS.
      limit: Number of records, evenly spread; 0 for all.

    Raises:
      UserError: The dataset does not exist, or cannot be read without TensorFlow; the
        message says how to get it.
    """
    own = os.path.expanduser(tfds.core.constants.DATA_DIR)
    roots = list(dict.fromkeys([cache or own, own]))
    folder = _newest_version(Path(root, name) for root in roots)
    if folder is not None:
        return open_prepared(folder, split or SPLITS[name], framing, limit=limit)
    if name not in ARCHIVES:
        raise UserError(
            f"config.eval.dataset={name}: not prepared in {' or '.join(roots)}. "
            f"Where TensorFlow is installed, `tfds build {name} "
            f"--file_format=array_record --data_dir={roots[0]}` makes it from the "
            "files of image-net.org; or give config.eval.path the folder of the "
            "validation images, with a subfolder for each class."
        )
    builder = CifarTest(config=name, data_dir=roots[0])
    if is_first_process():
        prepare(builder)
    wait_for_all("evaluation data")
    return _open(builder, split or SPLITS[name], framing, limit)


def open_prepared(
    folder: Path, split: str, framing: Framing, *, limit: int = 0
) -> tuple[StoredImages, Int32[np.ndarray, "n"], int]:
    """Returns the same as `open_dataset`, from a folder that TFDS prepared.

    Raises:
      UserError: The folder cannot be read, or has no such split, `image` or `label`.
    """
    builder = tfds.builder_from_directory(folder)
    features = builder.info.features or {}
    if not {"image", "label"} <= set(features):
        raise UserError(
            f"{folder}: records of {', '.join(features)}; evaluation data has `image` "
            "and `label`."
        )
    return _open(builder, split or _only_split(builder, folder), framing, limit)


def _only_split(builder: tfds.core.DatasetBuilder, folder: Path) -> str:
    """Returns the split called test or validation, or the only split."""
    names = list(builder.info.splits)
    for name in ("test", "validation"):
        if name in names:
            return name
    if len(names) != 1:
        raise UserError(
            f"{folder}: splits {', '.join(names)}, none called test or validation. "
            "Give one: --config.eval.split=NAME."
        )
    return names[0]


def _newest_version(folders: Iterable[Path]) -> Path | None:
    """Returns the newest version of a dataset, from the first folder that has one."""
    for folder in folders:
        if not folder.is_dir():
            continue
        versions = {
            tuple(map(int, path.name.split("."))): path
            for path in folder.iterdir()
            if path.name.replace(".", "").isdigit() and is_prepared_folder(path)
        }
        if versions:
            return versions[max(versions)]
    return None


def _open(
    builder: tfds.core.DatasetBuilder, split: str, framing: Framing, limit: int
) -> tuple[StoredImages, Int32[np.ndarray, "n"], int]:
    # Image files stay encoded, because TFDS needs OpenCV to decode them.
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        source = load_split(builder, split, decoders=decoders)
    except NotImplementedError as error:
        raise UserError(
            f"{builder.data_path}: in a format that needs TensorFlow to be read. Where "
            f"TensorFlow is installed, `tfds build {builder.name} "
            "--file_format=array_record` makes a dataset that does not need it."
        ) from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"config.eval.split: got {split!r}: {error}") from error
    # Evenly, not by class: TFDS shuffles records, and ImageNet's labels take minutes to
    # read.
    count = min(limit or len(source), len(source))
    indices = np.arange(count) * len(source) // max(count, 1)
    name = f"{builder.name} {split}"
    labels = _read_labels(source, indices, name)
    images = StoredImages(
        functools.partial(_read, source, indices, framing, name), count, framing.shape
    )
    return images, labels, builder.info.features["label"].num_classes


def _read(
    source: Source, indices: np.ndarray, framing: Framing, name: str, index: int
) -> np.ndarray:
    record = int(indices[index])
    return read_image(source[record]["image"], framing, f"{name}, record {record}")


def _read_labels(
    source: Source, indices: np.ndarray, name: str
) -> Int32[np.ndarray, "n"]:
    def read(chunk: np.ndarray) -> list[int]:
        return [int(source[int(index)]["label"]) for index in chunk]

    labels: list[int] = []
    chunks = (indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK))
    with Progress(f"{name}: labels", len(indices), "records") as progress:
        for part in read_ahead(read, chunks):
            labels += part
            progress.update(len(part))
    return np.asarray(labels, np.int32)

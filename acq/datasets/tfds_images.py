"""TFDS datasets as evaluation data, read without TensorFlow."""

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
    """Whether a folder is a dataset that TFDS prepared."""
    return (folder / _INFO).is_file()


def open_dataset(
    name: str, split: str, framing: Framing, *, cache: str, limit: int = 0
) -> tuple[StoredImages, Int32[np.ndarray, "n"], int]:
    """Returns a dataset's images, not decoded yet, their labels, and its classes.

    It is looked for in the cache and where TFDS keeps its own. If it is in neither,
    CIFAR's test images are fetched into the cache. All processes must call this
    together.

    Args:
      name: One of SPLITS.
      split: A split's name, or TFDS's slice of one; '' for the default.
      framing: What the classifier takes.
      cache: The folder of datasets; '' for the one where TFDS keeps its own.
      limit: Records to take, evenly spread; 0 for all.

    Raises:
      UserError: It is not there, or cannot be read without TensorFlow; says how to
        get it.
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
            f"--file_format=array_record --data_dir={roots[0]}` makes it of the files "
            "of image-net.org; or give config.eval.path the folder of the validation "
            "images, with a subfolder a class."
        )
    builder = CifarTest(config=name, data_dir=roots[0])
    if is_first_process():
        prepare(builder)
    wait_for_all("evaluation data")
    return _open(builder, split or SPLITS[name], framing, limit)


def open_prepared(
    folder: Path, split: str, framing: Framing, *, limit: int = 0
) -> tuple[StoredImages, Int32[np.ndarray, "n"], int]:
    """Returns what `open_dataset` does, of a folder that TFDS prepared.

    Raises:
      UserError: It cannot be read, or has no such split, `image` or `label`.
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
    """The split to evaluate on, where the name of one or their number tells."""
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
    """The newest version of a dataset, in the first folder that has one."""
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
    # The files as they are: to decode them, TFDS wants OpenCV.
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        source = load_split(builder, split, decoders=decoders)
    except NotImplementedError as error:
        raise UserError(
            f"{builder.data_path}: in a format that is read with TensorFlow only. "
            f"Where that is installed, `tfds build {builder.name} "
            "--file_format=array_record` makes one that is read without."
        ) from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"config.eval.split: got {split!r}: {error}") from error
    # Evenly, not by class: TFDS shuffles what it prepares, and the records of ImageNet
    # take minutes to read.
    count = min(limit or len(source), len(source))
    places = np.arange(count) * len(source) // max(count, 1)
    name = f"{builder.name} {split}"
    labels = _read_labels(source, places, name)
    images = StoredImages(
        functools.partial(_read, source, places, framing, name), count, framing.shape
    )
    return images, labels, builder.info.features["label"].num_classes


def _read(
    source: Source, places: np.ndarray, framing: Framing, name: str, place: int
) -> np.ndarray:
    record = int(places[place])
    return read_image(source[record]["image"], framing, f"{name}, record {record}")


def _read_labels(
    source: Source, places: np.ndarray, name: str
) -> Int32[np.ndarray, "n"]:
    def read(chunk: np.ndarray) -> list[int]:
        return [int(source[int(place)]["label"]) for place in chunk]

    labels: list[int] = []
    chunks = (places[i : i + _CHUNK] for i in range(0, len(places), _CHUNK))
    with Progress(f"{name}: labels", len(places), "records") as progress:
        for part in read_ahead(read, chunks):
            labels += part
            progress.update(len(part))
    return np.asarray(labels, np.int32)

"""Builds a dataset once, without TFDS's output, and gives random access to its splits.

Nothing here imports TensorFlow or uses the network: builders are given as objects,
files are array_record, and TFDS's bucket is never tried.
"""

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from common.errors import UserError
from common.folder_lock import hold_folder
from common.pipeline import Source


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Returns whether the complete dataset is on disk."""
    return (builder.data_path / "dataset_info.json").exists()


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Builds the dataset if it does not exist yet.

    The builder writes to a sibling folder `*.incomplete.*`, and one rename at the end
    makes it the dataset. So an interrupted build leaves no dataset, and the next call
    starts again. Only one of several processes calls this; the others wait.

    Args:
      builder: a TFDS builder.

    Raises:
      UserError: its sources are wrong (the message is the builder's), another command
        is building it, or its folder cannot be written to or is full.
    """
    if is_prepared(builder):
        return
    logging.info("building dataset %s in %s", builder.name, builder.data_dir)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS shows three nested bars and prints to stdout; `tracked` shows one line.
    tfds.disable_progress_bar()
    with (
        hold_folder(Path(builder.data_path).parent, f"building {builder.name}"),
        _disk_errors_as_user_errors(Path(builder.data_path).parent),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        builder.download_and_prepare(download_config=config, file_format="array_record")


@contextlib.contextmanager
def _disk_errors_as_user_errors(folder: Path) -> Iterator[None]:
    """Raises UserError for errors of the disk, from Python or array_record."""
    full = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    try:
        yield
    except (OSError, RuntimeError) as error:
        # array_record, in C++, raises RuntimeError with the system's message.
        if isinstance(error, RuntimeError) and not any(w in str(error) for w in full):
            raise
        words = next((w for w in full if w in str(error)), str(error))
        raise UserError(
            f"{folder}: the dataset could not be built ({words}). Make room, or give "
            "another --config.data.cache."
        ) from error


def load_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    decoders: Mapping[str, Any] | None = None,
) -> Source:
    """Returns the records of one split by number; builds the dataset if necessary.

    Args:
      builder: a TFDS builder.
      split: a split's name, or TFDS's slice of one: `train[:10]`.
      decoders: of features; replace those of TFDS.

    Returns:
      A random access source for grain, with the records in the order of the build.

    Raises:
      UserError: the dataset has no such split, or its sources are wrong.
    """
    prepare(builder)
    name = split.split("[", 1)[0]
    if name not in builder.info.splits:
        sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
        raise UserError(
            f"dataset {builder.name} has no split {name!r}; it has {sizes} records. "
            "Ask for one of these."
        )
    return builder.as_data_source(split, decoders=decoders)

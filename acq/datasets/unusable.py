"""Reports all unusable image files of the evaluation data in one error."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from acq.datasets.decoding import UnusableImage
from acq.datasets.eval_data import Rows
from common.errors import UserError
from common.pipeline import read_ahead
from common.progress import Progress

MOST_NAMED = 10
_CHUNK = 64


@contextmanager
def reporting_all_unusable(images: Rows) -> Iterator[None]:
    """Replaces the error of one unusable image by an error that names all.

    Args:
      images: Images that are read in the context. To find all unusable ones, they are
        read again, each as a whole, because a header does not show a truncated file.

    Raises:
      UserError: At least one image is unusable. The message says how many, and names
        the first `MOST_NAMED` with their problems.
    """
    try:
        yield
    except UnusableImage as error:
        # The list is empty if the file was repaired since.
        found = list_unusable(images) or [str(error)]
        more = len(found) - MOST_NAMED
        raise UserError(
            f"{len(found)} of {len(images)} evaluation images cannot be used:\n  "
            + "\n  ".join(found[:MOST_NAMED])
            + (f"\n  and {more} more" if more > 0 else "")
        ) from error


def list_unusable(images: Rows) -> list[str]:
    """Returns the problem of each unusable image, in the order of the images."""
    starts = range(0, len(images), _CHUNK)

    def problems_from(start: int) -> list[str]:
        found = []
        for index in range(start, min(start + _CHUNK, len(images))):
            try:
                images[np.array([index])]
            except UnusableImage as error:
                found.append(str(error))
        return found

    every: list[str] = []
    with Progress("looking for unusable images", len(images), "images") as progress:
        for start, found in zip(starts, read_ahead(problems_from, starts), strict=True):
            every += found
            progress.update(min(_CHUNK, len(images) - start))
    return every

"""All unusable image files of the evaluation data at once, not the first alone."""

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
def told_together(images: Rows) -> Iterator[None]:
    """Names, once one image turns out unusable, all that are.

    Args:
      images: That are read inside. To find the others, all of them are read again,
        each whole: a header does not tell a file that was cut short.

    Raises:
      UserError: At least one is unusable: says how many of how many, and the first
        `MOST_NAMED` with what is wrong.
    """
    try:
        yield
    except UnusableImage as error:
        # None, if the file was mended since.
        found = list_unusable(images) or [str(error)]
        more = len(found) - MOST_NAMED
        raise UserError(
            f"{len(found)} of {len(images)} evaluation images cannot be used:\n  "
            + "\n  ".join(found[:MOST_NAMED])
            + (f"\n  and {more} more" if more > 0 else "")
        ) from error


def list_unusable(images: Rows) -> list[str]:
    """Returns what is wrong with each unusable image, in the order of the images."""
    starts = range(0, len(images), _CHUNK)

    def look(start: int) -> list[str]:
        found = []
        for place in range(start, min(start + _CHUNK, len(images))):
            try:
                images[np.array([place])]
            except UnusableImage as error:
                found.append(str(error))
        return found

    every: list[str] = []
    with Progress("looking for unusable images", len(images), "images") as progress:
        for start, found in zip(starts, read_ahead(look, starts), strict=True):
            every += found
            progress.update(min(_CHUNK, len(images) - start))
    return every

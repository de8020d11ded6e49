"""What building a dataset says where the disk refuses."""

import errno
import os

import pytest

from common.dataset import prepare
from common.errors import UserError


class Builder:
    """Stands for a TFDS builder that fails as its writers do on a full disk."""

    name = "pairs"

    def __init__(self, folder, error):
        self.data_dir = folder
        self.data_path = folder / "pairs" / "1.0.0"
        self._error = error

    def download_and_prepare(self, **options):
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        # What array_record 0.8 raised on a full tmpfs.
        RuntimeError(
            'Failed to finalize writing of split "test": write() failed: No space left '
            "on device; writing test.array_record"
        ),
    ],
)
def test_a_full_disk_is_told_with_the_key(tmp_path, error):
    with pytest.raises(
        UserError, match=r"pairs: .*No space left on device.*config\.data\.cache"
    ):
        prepare(Builder(tmp_path, error))


def test_other_errors_are_not_the_disk_s(tmp_path):
    with pytest.raises(RuntimeError, match="something else"):
        prepare(Builder(tmp_path, RuntimeError("something else")))

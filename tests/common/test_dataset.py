"""Messages of building a dataset when the disk fails."""

import errno
import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from common.dataset import prepare
from common.errors import UserError


class Failing(tfds.core.GeneratorBasedBuilder):
    """Fails while it is built, as TFDS's writers do on a full disk."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, error, **arguments):
        self._error = error
        super().__init__(**arguments)

    def _info(self):
        features = tfds.features.FeaturesDict({"a": np.int32})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        raise self._error

    def _generate_examples(self):
        yield "0", {"a": 0}


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
        UserError, match=r"failing: .*No space left on device.*config\.data\.cache"
    ):
        prepare(Failing(error, data_dir=tmp_path))


def test_other_errors_are_not_the_disk_s(tmp_path):
    with pytest.raises(RuntimeError, match="something else"):
        prepare(Failing(RuntimeError("something else"), data_dir=tmp_path))

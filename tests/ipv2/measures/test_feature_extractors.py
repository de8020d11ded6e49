"""Tests of ipv2.measures.feature_extractors."""

import numpy as np
import pytest

from common.errors import UserError
from ipv2.measures.feature_extractors import (
    EXTRACTORS,
    extract_features,
    find_extractor,
    to_uint8,
    to_unit,
)
from ipv2.measures.metrics import WINDOWS

LUNG = WINDOWS["lung"]
TINY = """
import numpy as np

def bands(images):
    assert images.dtype == np.uint8
    return np.stack([images.mean((1, 2)), images.std((1, 2))], axis=1)

def unit(images):
    assert images.dtype == np.float32
    return images.reshape(len(images), -1)[:, :3]

unit.takes = "unit"

def wrong_kind(images):
    return images
wrong_kind.takes = "colour"

def images_back(images):
    return images

def too_few(images):
    return np.zeros((1, 3))

def infinite(images):
    return np.full((len(images), 2), np.inf)

def other_widths(images):
    return np.zeros((len(images), len(images)))

def raises(images):
    return images.nothing

number = 3
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A user's own extractors."""
    name = f"tiny_features_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(TINY)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def _batches():
    rng = np.random.default_rng(0)
    return [rng.uniform(-1400, 200, (n, 8, 8)).astype(np.float32) for n in (3, 2)]


def test_an_own_extractor_sees_8_bits_of_the_window(tiny):
    found = extract_features(find_extractor(f"{tiny}:bands"), _batches(), LUNG)
    greys = to_uint8(np.concatenate(_batches()), LUNG)
    assert found.dtype == np.float64 and found.shape == (5, 2)
    np.testing.assert_allclose(found[:, 0], greys.mean((1, 2)))


def test_an_own_extractor_may_see_numbers_that_are_not_rounded(tiny):
    found = extract_features(find_extractor(f"{tiny}:unit"), _batches(), LUNG)
    expected = to_unit(np.concatenate(_batches()), LUNG).reshape(5, -1)[:, :3]
    np.testing.assert_array_equal(found, expected)


def test_grey_levels_are_those_of_the_window():
    hu = np.array([[-2000.0, -1350, -600, 150, 900]], np.float32)
    np.testing.assert_array_equal(to_unit(hu, LUNG), [[0, 0, 0.5, 1, 1]])
    # 127.5 is rounded to even.
    np.testing.assert_array_equal(to_uint8(hu, LUNG), [[0, 0, 128, 255, 255]])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("images_back", r"must return \(n, d\) features; got \(3, 8, 8\)"),
        ("too_few", r"got \(1, 3\) for 3 images"),
        ("infinite", "must return finite numbers"),
        ("other_widths", r"got \(2, 2\) for 2 images, after \(3,\)"),
        ("raises", r"tiny_features.*py:[0-9]+: AttributeError"),
    ],
)
def test_an_extractor_that_breaks_the_rules_is_refused(tiny, function, message):
    extractor = find_extractor(f"{tiny}:{function}")
    with pytest.raises(UserError, match=message):
        extract_features(extractor, _batches(), LUNG)


def test_an_extractor_that_is_not_there_is_refused(tiny):
    with pytest.raises(UserError, match=r"got 'vgg', accepted: inception, clip"):
        find_extractor("vgg")
    with pytest.raises(UserError, match="no module 'no_such_package'"):
        find_extractor("no_such_package.features:extract")
    with pytest.raises(UserError, match="no function 'number'; it has bands"):
        find_extractor(f"{tiny}:number")
    with pytest.raises(UserError, match="takes 'colour'; accepted: 'uint8', 'unit'"):
        find_extractor(f"{tiny}:wrong_kind")


def test_the_named_extractors_can_be_found():
    for name in EXTRACTORS:
        assert callable(find_extractor(name))


def test_without_images_there_are_no_features(tiny):
    with pytest.raises(ValueError, match="no image"):
        extract_features(find_extractor(f"{tiny}:bands"), [], LUNG)

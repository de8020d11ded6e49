"""Tests of ipv2.datasets.registration."""

import numpy as np
import pytest
from scipy import ndimage

from common.errors import UserError
from ipv2.datasets import registration
from ipv2.datasets.registration import Registered, register


def _chest(seed: int = 0) -> np.ndarray:
    """A body, two lungs and vessels of 192 pixels."""
    y, x = np.mgrid[:192, :192] - 96.0
    hu = np.where(np.hypot(x / 80, y / 60) < 1, 40.0, -1000.0)
    for side in (-35, 35):
        hu[np.hypot((x - side) / 28, y / 40) < 1] = -850
    rng = np.random.default_rng(seed)
    for cx, cy in rng.uniform(-40, 40, (30, 2)):
        hu[np.hypot(x - cx, y - cy) < 3] = 40
    return ndimage.gaussian_filter(hu, 0.8).astype(np.float32)


def _breath(hu: np.ndarray) -> np.ndarray:
    """The same chest 5 pixels wider at its sides."""
    y, x = np.mgrid[:192, :192].astype(float)
    moved = 5 * np.sin((x - 96) / 192 * np.pi)
    return ndimage.map_coordinates(hu, [y, x - moved], order=1, mode="nearest")


def _record(lq: np.ndarray, gt: np.ndarray) -> dict:
    return {
        "lq": np.round(lq).astype(np.int16),
        "gt": np.round(gt).astype(np.int16),
        "spacing_mm": np.float32([2, 2]),
        "slice": np.int32(7),
    }


def _error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((image - truth) ** 2)))


@pytest.mark.parametrize("noise_hu", [0, 150])
def test_a_breath_is_taken_back(noise_hu):
    truth = _chest()
    noise = noise_hu * np.random.default_rng(1).standard_normal(truth.shape)
    lq = (truth + noise).astype(np.float32)
    registered = register(lq, _breath(truth), (2.0, 2.0))
    # A third: edges a pixel off remain, and noise pulls at them.
    assert _error(registered, truth) < _error(_breath(truth), truth) / 3


def test_without_a_breath_the_slice_stays():
    truth = _chest()
    registered = register(truth, truth, (2.0, 2.0))
    # Interpolation where the field is zero but for rounding.
    assert _error(registered, truth) < 0.01


def test_no_value_is_made_up():
    truth = _chest()
    registered = register(truth, _breath(truth), (2.0, 2.0))
    assert registered.min() >= truth.min() and registered.max() <= truth.max()


def test_a_slice_too_small_to_be_registered_is_refused():
    small = np.zeros((40, 24), np.float32)
    with pytest.raises(UserError, match="40 x 24 pixels cannot be registered"):
        register(small, small, (1.0, 1.0))


@pytest.mark.slow
def test_a_record_is_registered_once(tmp_path, monkeypatch):
    truth = _chest()
    source = [_record(truth, _breath(truth)), _record(_chest(3), _breath(_chest(3)))]
    first = Registered(source, tmp_path)
    first.prepare()
    calls = []
    monkeypatch.setattr(registration, "register", lambda *a: calls.append(a))
    again = Registered(source, tmp_path)
    for index in range(2):
        np.testing.assert_array_equal(again[index]["gt"], first[index]["gt"])
        np.testing.assert_array_equal(again[index]["lq"], source[index]["lq"])
    assert not calls and len(again) == 2 and again[0]["slice"] == 7
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_another_slice_is_another_file(tmp_path):
    truth = _chest()
    record = _record(truth, _breath(truth))
    Registered([record], tmp_path).prepare()
    changed = record | {"lq": record["lq"] + 1}
    Registered([changed], tmp_path).prepare()
    assert len(list(tmp_path.iterdir())) == 2

"""Tests of ipv2.tasks.distances."""

import numpy as np
import pytest

from common.errors import UserError
from ipv2.tasks.distances import check_features, measure_distances

THIS = f"{__name__}:means"


def means(images):
    """An extractor: means of quarters, as grey levels."""
    n, h, w = images.shape
    quarters = images.reshape(n, 2, h // 2, 2, w // 2).mean((2, 4))
    return quarters.reshape(n, 4)


def batches(count, shift=0.0):
    """Slices one by one; the input is the reference and a shift."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        reference = rng.normal(-600, 300, (2, 16, 16)).astype(np.float32)
        lq = (reference + shift)[..., None]
        yield {"reference": reference, "lq": lq}, 1  # the second is padding


def distances(count, patients, shift=0.0):
    found = measure_distances((THIS,), batches(count, shift), lambda b: {}, patients)
    return found[THIS]["input"]


def test_equal_images_have_distance_0_and_a_floor_above():
    found = distances(12, [str(i // 2) for i in range(12)])
    # float64 from 8-bit grey levels.
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert found["fid_floor"] > 0 and found["fid_held_out"] > 0
    assert found["images"] == 12 and found["features"] == 4
    assert found["window"] == "lung" and found["kid"]["low"] <= found["kid"]["value"]


def test_a_shift_of_the_grey_levels_is_the_distance_of_the_means():
    found = distances(12, [str(i) for i in range(12)], shift=100.0)
    # 100 HU of 1500 are 17 of 255 levels, in each of 4 features. Levels are rounded,
    # and noise of 300 HU is clipped at the window's ends.
    assert found["fid"] == pytest.approx(4 * 17**2, rel=0.1)


def test_too_few_slices_are_null_and_it_is_said_why():
    found = distances(3, ["a", "b", "c"])
    assert found["fid"] is None and found["kid_floor"]["value"] is None
    assert "a floor needs two groups with two slices each" in found["note"]


def test_extractors_are_tried_before_any_work():
    check_features(None)
    check_features((THIS,))
    with pytest.raises(UserError, match="accepted: inception, clip, or"):
        check_features(("resnet",))

"""Tests of ipv2.volumes.noise_check."""

import logging

import numpy as np
import pytest

from ipv2.volumes.noise_check import TRAINED_NOISE, NoiseCheck


def _slice(noise_hu: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (40 + noise_hu * rng.standard_normal((64, 64))).astype(np.float32)


def _warnings(caplog, manifest: dict, *noise_hu: float) -> list[str]:
    check = NoiseCheck(manifest, len(noise_hu))
    with caplog.at_level(logging.WARNING, logger="absl"):
        for seed, noise in enumerate(noise_hu):
            check.add(_slice(noise, seed))
        check.warn("scan")
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("noise_hu", [5, 90])
def test_a_scan_outside_of_the_range_is_warned_of(caplog, noise_hu):
    (message,) = _warnings(caplog, {TRAINED_NOISE: [20.0, 60.0]}, noise_hu, noise_hu)
    assert message.startswith("scan: noise of ") and "20 to 60 HU" in message


def test_a_scan_within_the_range_is_not(caplog):
    assert not _warnings(caplog, {TRAINED_NOISE: [20.0, 60.0]}, 40, 40)


def test_one_odd_slice_does_not_count(caplog):
    assert not _warnings(caplog, {TRAINED_NOISE: [20.0, 60.0]}, 40, 40, 200)


def test_an_export_without_a_range_is_not_judged(caplog):
    assert not _warnings(caplog, {}, 500)


def test_few_slices_of_a_long_volume_are_measured():
    check = NoiseCheck({TRAINED_NOISE: [20.0, 60.0]}, 1000)
    for _ in range(64):
        check.add(_slice(30))
    assert len(check.found_hu) == 2  # every 63rd


def test_small_slices_are_not_measured(caplog):
    check = NoiseCheck({TRAINED_NOISE: [20.0, 60.0]}, 1)
    check.add(np.zeros((16, 16), np.float32))
    check.warn("scan")
    assert not check.found_hu and not caplog.records

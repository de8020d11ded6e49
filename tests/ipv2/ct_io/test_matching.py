"""Slices of two breaths are paired by the positions in their headers."""

import dataclasses

import numpy as np
import pytest

from common.errors import UserError
from ipv2 import ct_io


def volume_at(z, x=0.0, **fields):
    positions = np.stack([np.full(len(z), x), np.zeros(len(z)), z], axis=1)
    return ct_io.Volume(
        hu=np.zeros((len(z), 4, 4), np.float32),
        spacing_mm=(float(np.mean(np.diff(z))), 1.0, 1.0),
        origin_mm=(x, 0.0, float(z[0])),
        positions_mm=positions,
        **fields,
    )


def test_two_steps_in_one_series_are_paired_by_their_own_positions():
    # 60 slices 1.0 mm apart, 60 at 1.2 mm: the mean grid is up to 6 mm off.
    z = np.concatenate([np.arange(60), 59 + 1.2 * np.arange(1, 61)])
    pairs, left_out = ct_io.match_slices(volume_at(z), volume_at(z[60:]))
    assert pairs == [(60 + index, index) for index in range(60)]
    assert left_out == (
        "60 of 120 lq slices (number 0 at 0.0 mm, number 1 at 1.0 mm, number 2 at 2.0 "
        "mm, ...) without a partner"
    )


def test_a_partner_farther_than_half_a_slice_is_none():
    lq, gt = volume_at(np.arange(0.0, 20, 2)), volume_at([0.9, 2.9, 5.1, 20.0])
    pairs, left_out = ct_io.match_slices(lq, gt)
    assert pairs == [(0, 0), (1, 1), (3, 2)]
    assert "1 of 4 gt slices (number 3 at 20.0 mm)" in left_out


@pytest.mark.parametrize("axis", [0, 1])
def test_fields_of_view_beside_each_other_are_no_pair(axis):
    lq = volume_at(np.arange(6.0))
    shift = np.zeros(3)
    shift[axis] = 40.0
    gt = dataclasses.replace(lq, positions_mm=lq.positions_mm + shift)
    with pytest.raises(UserError, match=r"40\.0.* mm beside lq's, accepted are 20 mm"):
        ct_io.match_slices(lq, gt)
    assert len(ct_io.match_slices(lq, gt, by="index")[0]) == 6
    shift[axis] = 15.0
    gt = dataclasses.replace(lq, positions_mm=lq.positions_mm + shift)
    assert len(ct_io.match_slices(lq, gt)[0]) == 6


def test_an_offset_of_half_a_slice_pairs_all():
    lq, gt = volume_at(np.arange(2.5, 52, 5)), volume_at(np.arange(0.0, 50, 5))
    pairs, left_out = ct_io.match_slices(lq, gt)
    assert pairs == [(index, index) for index in range(10)] and not left_out

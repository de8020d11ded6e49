"""Tests of ipv2.measures.intervals."""

import numpy as np
import pytest
from scipy import stats

from ipv2.measures.intervals import resampled_groups, summarise


def test_patients_are_resampled_where_there_are_several():
    assert resampled_groups(["a", "a", "b"]) == ("patients", ["a", "a", "b"])
    assert resampled_groups(["a", "a"]) == ("slices", ["0", "1"])


def test_the_interval_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(0).normal(30, 2, 40)
    ours = summarise(values, [str(i) for i in range(40)])
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=0
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert ours.sd == pytest.approx(values.std(ddof=1))
    # 2,000 draws: a percentile's own standard error is 0.02 here.
    assert ours.low == pytest.approx(theirs.low, abs=0.08)
    assert ours.high == pytest.approx(theirs.high, abs=0.08)


def test_slices_of_one_patient_count_as_one():
    rng = np.random.default_rng(1)
    patient = rng.normal(0, 3, 8)
    values = np.repeat(patient, 25) + rng.normal(0, 0.1, 200)
    groups = np.repeat([f"p{i}" for i in range(8)], 25)
    by_patient = summarise(values, list(groups))
    by_slice = summarise(values, [str(i) for i in range(200)])
    assert by_patient.high - by_patient.low > 3 * (by_slice.high - by_slice.low)


def test_slices_without_a_value_do_not_count():
    found = summarise(np.array([1.0, np.nan, 3.0]), ["a", "b", "c"])
    assert (found.mean, found.n) == (2, 2)


def test_what_cannot_be_known_is_none():
    assert summarise(np.array([np.nan]), ["a"]) == (None, None, 0, None, None)
    assert summarise(np.array([5.0]), ["a"]) == (5, None, 1, None, None)
    assert summarise(np.array([1.0, 2.0]), ["a", "a"])[3:] == (None, None)


def test_the_same_values_have_the_same_interval():
    values = np.arange(10.0)
    groups = list("abcdefghij")
    assert summarise(values, groups) == summarise(values, groups)

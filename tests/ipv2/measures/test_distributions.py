"""Tests of ipv2.measures.distributions."""

import numpy as np
import pytest
from scipy import linalg

from ipv2.measures.distributions import (
    distribution_distances,
    frechet_distance,
    kernel_distance,
)


def _sets(n: int = 60, m: int = 50, d: int = 8, shift: float = 0.3):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix, rng.normal(size=(m, d)) + shift


def _frechet_of_scipy(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (np.cov(s, rowvar=False) for s in (x, y))
    difference = x.mean(0) - y.mean(0)
    root = np.real(linalg.sqrtm(a @ b))
    return difference @ difference + np.trace(a + b - 2 * root)


def test_the_frechet_distance_is_that_of_scipys_matrix_root():
    x, y = _sets()
    # float64; the root of a product loses half of the digits.
    assert frechet_distance(x, y) == pytest.approx(_frechet_of_scipy(x, y), rel=1e-7)


def test_the_frechet_distance_of_fewer_images_than_features():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 20)), rng.normal(size=(12, 20))
    a, b = (np.cov(s, rowvar=False) for s in (x, y))
    values = np.linalg.eigvals(a @ b)
    difference = x.mean(0) - y.mean(0)
    expected = difference @ difference + np.trace(a + b)
    expected -= 2 * np.sqrt(np.maximum(np.real(values), 0)).sum()
    # The eigenvalues that are 0 come out as 1e-15, their roots as 3e-8.
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-5)


def test_the_frechet_distance_of_equal_sets_is_0():
    x, _ = _sets()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_few_images_make_the_frechet_distance_too_large():
    rng = np.random.default_rng(2)
    few, many = (
        np.mean(
            [
                frechet_distance(rng.normal(size=(n, 16)), rng.normal(size=(n, 16)))
                for _ in range(5)
            ]
        )
        for n in (20, 500)
    )
    assert few > 8 * many


def _kernel_of_a_loop(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    within = [
        np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])
        for s in (x, y)
    ]
    return sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_the_kernel_distance_is_that_of_a_loop(monkeypatch):
    x, y = _sets(n=23, m=17)
    monkeypatch.setattr("ipv2.measures.distributions._ROWS", 5)
    groups = [f"p{i % 5}" for i in range(23)]
    others = [f"p{i % 7}" for i in range(17)]
    expected = _kernel_of_a_loop(x, y)
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-10)
    grouped = kernel_distance(x, y, groups, others)
    assert grouped.value == pytest.approx(expected, rel=1e-10)
    # The same array as both sets is two sets all the same.
    assert kernel_distance(x, x).value == pytest.approx(
        _kernel_of_a_loop(x, x.copy()), rel=1e-10
    )


def test_the_interval_is_that_of_leaving_groups_out_in_turn():
    x, y = _sets(n=24, m=24)
    groups = [f"p{i // 4}" for i in range(24)]
    found = kernel_distance(x, y, groups, groups)
    left = np.array(
        [
            _kernel_of_a_loop(x[keep], y[keep])
            for g in sorted(set(groups))
            if (keep := np.array(groups) != g).any()
        ]
    )
    error = np.sqrt(5 / 6 * np.sum((left - left.mean()) ** 2))
    # Student's t of 5 degrees: 2.5706.
    assert found.high - found.value == pytest.approx(2.5706 * error, rel=1e-4)
    assert found.value - found.low == pytest.approx(2.5706 * error, rel=1e-4)


@pytest.mark.slow
def test_the_kernel_distance_has_no_bias_and_its_interval_holds():
    rng = np.random.default_rng(3)
    truth = kernel_distance(
        rng.normal(size=(1500, 4)) + 0.3, rng.normal(size=(1500, 4))
    ).value
    found = [
        kernel_distance(rng.normal(size=(40, 4)) + 0.3, rng.normal(size=(40, 4)))
        for _ in range(100)
    ]
    values = np.array([f.value for f in found])
    assert abs(values.mean() - truth) < 3 * values.std() / 10
    held = np.mean([f.low < truth < f.high for f in found])
    # 95 % of 100, less 3 standard errors of 2.2 %.
    assert 0.885 < held <= 1


def test_a_perfect_output_reaches_the_floor_and_another_does_not():
    rng = np.random.default_rng(4)
    patients = [f"p{i // 10}" for i in range(200)]
    truth = rng.normal(size=(200, 6))
    perfect = distribution_distances(truth, truth, patients)
    assert perfect.fid == pytest.approx(0, abs=1e-9)
    assert perfect.fid_held_out == pytest.approx(perfect.fid_floor)
    assert perfect.kid_held_out == pytest.approx(perfect.kid_floor.value)
    assert perfect.warnings == ()
    shifted = distribution_distances(truth + 1, truth, patients)
    # A shift by 1 in each of 6 features.
    assert shifted.fid == pytest.approx(6)
    assert shifted.fid_held_out > 5 * shifted.fid_floor
    assert shifted.kid_held_out > perfect.kid_floor.high


def test_patients_stay_in_one_half():
    # All slices of a patient are one image: halves of slices would be alike.
    truth = np.repeat(np.random.default_rng(5).normal(size=(12, 3)), 8, axis=0)
    patients = [f"p{i // 8}" for i in range(96)]
    by_patient = distribution_distances(truth, truth, patients)
    by_slice = distribution_distances(truth, truth, [str(i) for i in range(96)])
    assert by_patient.fid_floor > 3 * by_slice.fid_floor


def test_too_few_images_are_said():
    rng = np.random.default_rng(6)
    found = distribution_distances(
        *rng.normal(size=(2, 12, 20)), [f"p{i // 4}" for i in range(12)]
    )
    assert "12 images for 20 features" in found.warnings[0]
    assert "3 groups" in found.warnings[1]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 3)), np.zeros((4, 2)), "same features"),
        (np.zeros((1, 3)), np.zeros((4, 3)), "at least 2"),
        (np.full((4, 3), np.nan), np.zeros((4, 3)), "not finite"),
    ],
)
def test_sets_that_do_not_fit_are_refused(x, y, message):
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match=message):
            distance(x, y)


def test_groups_that_do_not_fit_are_refused():
    x = np.random.default_rng(7).normal(size=(4, 2))
    with pytest.raises(ValueError, match="got 2 and 4 for 4 and 4"):
        kernel_distance(x, x, ["a", "b"])
    with pytest.raises(ValueError, match="two groups"):
        distribution_distances(x, x, ["a"] * 4)

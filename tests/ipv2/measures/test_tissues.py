"""Tests of ipv2.measures.tissues."""

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.tissues import TISSUES, dense_foci_metrics, tissue_metrics

_INSIDE = {"air": -1000, "lung": -800, "fat": -100, "soft": 50, "bone": 600}


def _stripes() -> tuple[np.ndarray, np.ndarray, dict[str, slice]]:
    """A slice of one stripe per tissue, its lung mask and where the stripes are."""
    columns = {name: slice(100 * i, 100 * i + 100) for i, name in enumerate(TISSUES)}
    truth = np.zeros((500, 500), np.float32)
    for name, where in columns.items():
        truth[:, where] = _INSIDE[name]
    lung = np.zeros(truth.shape, bool)
    lung[:, columns["lung"]] = True
    return truth, lung, columns


@pytest.mark.slow
@pytest.mark.parametrize("name", TISSUES)
def test_bias_and_noise_are_those_of_the_tissue_alone(name):
    truth, lung, columns = _stripes()
    rng = np.random.default_rng(0)
    image = truth.copy()
    shape = image[:, columns[name]].shape
    image[:, columns[name]] += 12 + 30 * rng.standard_normal(shape)
    found = tissue_metrics(jnp.asarray(image), jnp.asarray(truth), jnp.asarray(lung))
    pixels = int(found[name]["pixels"])
    assert pixels > 500
    # Four standard errors of a mean and of a standard deviation.
    assert abs(float(found[name]["bias_hu"]) - 12) < 4 * 30 / pixels**0.5
    assert abs(float(found[name]["noise_sd_hu"]) - 30) < 4 * 30 / (2 * pixels) ** 0.5
    for other in set(TISSUES) - {name}:
        assert float(found[other]["bias_hu"]) == 0


@pytest.mark.slow
def test_edges_do_not_count():
    truth, lung, columns = _stripes()
    image = truth.copy()
    for where in list(columns.values())[1:]:
        image[:, where.start - 1 : where.start + 1] += 500
    found = tissue_metrics(jnp.asarray(image), jnp.asarray(truth), jnp.asarray(lung))
    assert all(float(found[name]["bias_hu"]) == 0 for name in TISSUES)


@pytest.mark.slow
def test_foam_outside_the_lungs_is_not_lung():
    truth = jnp.full((32, 32), -800.0)
    found = tissue_metrics(truth, truth, jnp.zeros((32, 32), bool))
    assert int(found["lung"]["pixels"]) == 0
    assert np.isnan(float(found["lung"]["bias_hu"]))


@pytest.mark.slow
def test_a_focus_at_half_its_height_keeps_half():
    truth = np.zeros((64, 64), np.float32)
    truth[20:26, 20:26] = 1000
    truth[40:44, 50:54] = 800
    kept = dense_foci_metrics(jnp.asarray(truth / 2), jnp.asarray(truth))
    assert float(kept["mean_kept"]) == pytest.approx(0.5, abs=1e-6)
    assert float(kept["peak_kept"]) == pytest.approx(0.5, abs=1e-6)
    assert int(kept["pixels"]) > 36


def test_a_peak_is_that_of_its_own_tile():
    truth = np.zeros((64, 64), np.float32)
    truth[4:10, 4:10] = 1000
    truth[52:58, 52:58] = 1000
    image = truth.copy()
    image[52:58, 52:58] = 400
    kept = dense_foci_metrics(jnp.asarray(image), jnp.asarray(truth))
    assert float(kept["peak_kept"]) == pytest.approx(0.7, abs=1e-6)


@pytest.mark.slow
def test_without_foci_there_is_no_number():
    water = jnp.zeros((2, 32, 32))
    kept = dense_foci_metrics(water, water)
    assert np.isnan(kept["mean_kept"]).all() and np.isnan(kept["peak_kept"]).all()

"""Tests of ipv2.purification.gating."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.purification.gating import agreement, gate

DOSE = 0.1
SCAN = DoseParams(dose=DOSE, views=192)
MM = 2.0


def _chest(shift_px: float = 0.0) -> np.ndarray:
    """A body with a lung that holds a vessel, displaced to the right."""
    y, x = np.mgrid[:192, :192] - 96.0
    x = x - shift_px
    hu = np.where(np.hypot(x / 80, y / 60) < 1, 40.0, -1000.0)
    hu[np.hypot(x / 50, y / 40) < 1] = -850
    hu[np.hypot(x - 20, y) < 5] = 40
    return ndimage.gaussian_filter(hu, 0.8).astype(np.float32)


def _scanned(hu: np.ndarray, seed: int, scan: DoseParams = SCAN) -> jax.Array:
    return simulate_low_dose(jax.random.key(seed), hu[None], MM, scan)[0]


def _normal(hu: np.ndarray, seed: int) -> np.ndarray:
    scan = DoseParams(dose=1.0, input_dose=np.inf, views=192)
    return np.asarray(_scanned(hu, seed, scan))


def _agrees(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    lq, noisy = _scanned(first, 1), _scanned(second, 2)
    return np.asarray(agreement(lq, jnp.asarray(second), noisy, DOSE))


@pytest.mark.slow
def test_one_breath_agrees_with_itself():
    """Two scans of the same anatomy, each with noise of its own."""
    hu = _chest()
    # 0.3 % of independent values pass three deviations; each takes some 13 pixels (the
    # fine scale) or 200 (the coarse one) with it.
    assert _agrees(_normal(hu, 3), _normal(hu, 4)).mean() > 0.93


@pytest.mark.slow
def test_what_moved_does_not_agree():
    agrees = _agrees(_normal(_chest(4.0), 3), _normal(_chest(), 4))
    moved = np.abs(_chest(4.0) - _chest()) > 200
    assert moved.sum() > 500
    assert agrees[moved].mean() < 0.02
    # Air above the body, three coarse widths from where it moved.
    assert agrees[:12].mean() > 0.9


def test_a_lung_of_another_density_does_not_agree():
    """A change of 30 HU, below the noise of a pixel, everywhere in the lung."""
    hu, other = _chest(), _chest()
    lung = ndimage.binary_erosion(hu < -840, iterations=3) & (hu > -860)
    other[lung] += 30
    agrees = _agrees(_normal(other, 3), _normal(hu, 4))
    assert agrees[ndimage.binary_erosion(lung, iterations=3)].mean() < 0.1


def test_the_gate_takes_lq_where_the_breaths_agree():
    lq, noisy = jnp.zeros((2, 2)), jnp.ones((2, 2))
    agrees = jnp.asarray([[True, False], [False, True]])
    np.testing.assert_array_equal(gate(lq, noisy, agrees), [[0, 1], [1, 0]])


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5])
def test_a_dose_without_added_noise_is_refused(ratio):
    image = jnp.zeros((32, 32))
    with pytest.raises(ValueError, match="dose_ratio"):
        agreement(image, image, image, ratio)

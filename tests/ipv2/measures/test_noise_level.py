"""Tests of ipv2.measures.noise_level."""

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.noise_level import soft_tissue_noise_hu
from tests.oracles.thorax import thorax


@pytest.mark.slow
@pytest.mark.parametrize("noise_hu", [5.0, 40.0, 150.0])
def test_it_is_the_noise_of_soft_tissue(noise_hu):
    hu = thorax(384).hu
    noise = np.random.default_rng(0).standard_normal(hu.shape)
    # Twice the noise in air: it does not count.
    sd = np.where(hu < -500, 2 * noise_hu, noise_hu)
    found = soft_tissue_noise_hu(jnp.asarray((hu + sd * noise)[None], jnp.float32))
    # A tenth low in white noise; windows that reach over an edge raise it again.
    assert 0.8 * noise_hu < float(found[0]) < 1.1 * noise_hu


@pytest.mark.slow
def test_in_white_noise_it_reads_a_tenth_low():
    noise = np.random.default_rng(1).standard_normal((1, 256, 256))
    found = soft_tissue_noise_hu(jnp.asarray(30 * noise, jnp.float32))
    assert float(found[0]) == pytest.approx(27, rel=0.03)


@pytest.mark.slow
def test_air_has_no_number():
    assert np.isnan(float(soft_tissue_noise_hu(jnp.full((64, 64), -1000.0))))

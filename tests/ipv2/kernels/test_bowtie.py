"""The bowtie filter against its closed form, and in the noise of parallel and fan."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels.bowtie import bowtie_transmission
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose

MU = 0.0192
DISTANCE = jnp.linspace(-250.0, 250.0, 101)


def test_every_ray_through_the_cylinder_loses_the_same():
    radius = 120.0
    passed = np.asarray(bowtie_transmission(DISTANCE, radius, MU))
    chord = 2 * np.sqrt(np.maximum(radius**2 - np.asarray(DISTANCE, float) ** 2, 0))
    # 1e-4: one ray touches the cylinder, where the root of a rounding error remains.
    np.testing.assert_allclose(
        passed * np.exp(-MU * chord), math.exp(-2 * MU * radius), rtol=1e-4
    )
    assert passed[50] == 1 and np.all(passed <= 1)


def test_without_a_radius_all_photons_pass():
    passed = bowtie_transmission(DISTANCE, 0.0, MU)
    np.testing.assert_array_equal(passed, np.ones(101))


@pytest.mark.slow
@pytest.mark.parametrize("source_distance_mm", [None, 600.0])
def test_noise_of_air_rises_to_the_edge_as_photons_fall(source_distance_mm):
    """The variance at r is the mean over the views of 1 / T(r cos(theta))."""
    size, mm, radius = 48, 8.0, 60.0
    air = np.full((96, size, size), -1000.0, np.float32)
    variance = []
    for bowtie_mm in (0.0, radius):
        scan = DoseParams(
            dose=0.5,
            views=61,
            photons=1e6,
            electronic_variance=0.0,
            source_distance_mm=source_distance_mm,
            bowtie_mm=bowtie_mm,
        )
        noise = simulate_low_dose(jax.random.key(0), air, mm, scan) + 1000
        variance.append(np.var(noise, axis=0))
    found = variance[1] / variance[0]
    row, column = np.mgrid[:size, :size] - size // 2
    distance = np.hypot(row, column)
    theta = np.linspace(0, np.pi, 181)[:-1]
    for low, high in ((0, 2), (7, 9), (14, 16)):
        ring = (distance >= low) & (distance < high)
        ray = jnp.asarray(mm * distance[ring][:, None] * np.cos(theta))
        expected = np.mean(1 / np.asarray(bowtie_transmission(ray, radius, MU)))
        # 8 %: variances of 96 images in a ring of a dozen pixels or more; the filter
        # mixes neighbouring rays, whose T differs.
        assert found[ring].mean() == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("bowtie_mm", [-1.0, math.inf, math.nan])
def test_a_radius_that_is_none_is_refused(bowtie_mm):
    with pytest.raises(ValueError, match="bowtie_mm"):
        DoseParams(dose=0.1, bowtie_mm=bowtie_mm)

"""Units of networks: HU / 1000, and windowed grey in three equal channels."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.models.units import (
    SCALED_HU,
    WindowedGrey,
    unit_from_json,
)
from ipv2.training.denoiser import Flow, make_denoise

LUNG = WindowedGrey(centre_hu=-600.0, width_hu=1500.0)


class Drift(nn.Module):
    """A flow whose channels move by constant velocities, whatever it sees."""

    velocities: tuple[float, ...]

    @property
    def channels(self):
        return len(self.velocities)

    @nn.compact
    def __call__(self, x, time, *, dropout_rngs=None):
        assert x.shape[-1] == self.channels
        return jnp.broadcast_to(jnp.asarray(self.velocities), x.shape)


def test_grey_is_linear_in_the_window_and_clipped_outside():
    hu = jnp.asarray([-3024.0, -1350.0, -600.0, -225.0, 150.0, 2000.0])
    np.testing.assert_array_equal(LUNG.from_hu(hu), [-1, -1, 0, 0.5, 1, 1])


def test_inside_of_the_window_grey_gives_hu_back():
    hu = jnp.linspace(-1350, 150, 1501)
    # float32 at 1350 HU: steps of 1e-4.
    back = LUNG.to_hu(LUNG.from_hu(hu), hu)
    np.testing.assert_allclose(back, hu, rtol=0, atol=3e-4)


def test_outside_of_the_window_the_input_stays_to_the_bit():
    original = jnp.asarray([-3024.0, -1350.1, 150.1, 2000.0, 40.0, 40.0])
    grey = jnp.asarray([0.0, 0.5, -0.5, 0.0, 3.0, -3.0])
    hu = LUNG.to_hu(grey, original)
    np.testing.assert_array_equal(hu[:4], original[:4])
    # Results beyond the window are clipped to it.
    np.testing.assert_array_equal(hu[4:], [150.0, -1350.0])


@pytest.mark.slow
def test_a_windowed_flow_takes_one_slice_and_returns_the_mean_of_its_channels():
    flow = Flow(model=Drift((0.1, 0.2, 0.6)), steps=4, unit=LUNG)
    assert flow.slices == 1
    hu = jnp.asarray([[-900.0, -600.0], [300.0, -1000.0]])[None, :, :, None]
    result = make_denoise(flow)({}, hu)
    # The mean velocity, 0.3 of half the window, is 225 HU; 300 HU lie outside.
    expected = [[[-675.0, -375.0], [300.0, -775.0]]]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)


def test_a_flow_in_scaled_hu_takes_neighbours_and_returns_the_middle():
    flow = Flow(model=Drift((0.1, 0.2, 0.6)), steps=4)
    assert flow.slices == 3
    hu = jnp.asarray([-100.0, 40.0, 900.0])[None, None, None]
    np.testing.assert_allclose(make_denoise(flow)({}, hu), [[[240.0]]], atol=1e-3)


@pytest.mark.parametrize("unit", [SCALED_HU, LUNG], ids=lambda unit: unit.name)
def test_a_unit_read_from_json_is_equal(unit):
    assert unit_from_json(unit.to_json()) == unit


def test_an_unknown_unit_or_window_is_refused():
    with pytest.raises(ValueError, match=r"got 'grey/255', accepted: HU/1000, wind"):
        unit_from_json({"unit": "grey/255"})
    with pytest.raises(ValueError, match=r"width_hu: got 0\.0, accepted: above 0"):
        unit_from_json({"unit": "windowed grey", "window": [40.0, 0.0]})
    with pytest.raises(KeyError, match="window"):
        unit_from_json({"unit": "windowed grey"})

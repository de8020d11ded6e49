import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.contour import contour_displacement_px

SIZE, RADIUS = 256, 60

# One shape for all tests: compiled once.
_measured = jax.jit(jax.vmap(contour_displacement_px))


def _disc(x0=0.0, y0=0.0, radius=RADIUS):
    """Returns a dark lung disc in soft tissue, its edge a pixel wide, and its mask."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    distance = np.hypot(x - x0, y - y0) - radius
    share = np.clip(0.5 - distance, 0, 1)
    return jnp.asarray(40 - 890 * share, jnp.float32), jnp.asarray(distance < -3)


def _moved(image, truth, lung):
    return float(_measured(*(jnp.stack([x, x]) for x in (image, truth, lung)))[0])


def test_equal_images_have_not_moved():
    image, lung = _disc()
    assert _moved(image, image, lung) == 0


@pytest.mark.parametrize("shift", [1.0, 2.0, 4.0])
def test_a_shifted_disc_moved_by_the_mean_of_its_normal_shift(shift):
    """The mean of |shift cos(angle)| is 2 / pi times the shift."""
    truth, lung = _disc()
    image, _ = _disc(x0=shift)
    # A contour 377 pixels long, counted in whole pixels: a few percent.
    assert _moved(image, truth, lung) == pytest.approx(2 / np.pi * shift, rel=0.06)


@pytest.mark.parametrize("growth", [-3.0, 2.0])
def test_a_grown_disc_moved_by_its_growth(growth):
    truth, lung = _disc()
    image, _ = _disc(radius=RADIUS + growth)
    # The ring's mean radius differs from the truth's by up to 1.5 of 60.
    assert _moved(image, truth, lung) == pytest.approx(abs(growth), rel=0.06)


@pytest.mark.slow
def test_noise_moves_the_outline_little_and_far_structure_not_at_all():
    truth, lung = _disc()
    noise = 100 * jax.random.normal(jax.random.key(0), truth.shape)
    # Smoothed to 19 HU, on an edge of 890 HU over 4 pixels: below 0.1 pixel.
    assert 0 < _moved(truth + noise, truth, lung) < 0.15
    far = truth.at[:20, :20].set(-1000.0)
    assert _moved(far, truth, lung) == 0


def test_vessels_missing_from_the_mask_do_not_count_as_outline():
    truth, lung = _disc()
    vessel = (slice(120, 124), slice(120, 124))
    assert _moved(truth, truth.at[vessel].set(40.0), lung.at[vessel].set(False)) == 0


def test_a_slice_without_lung_is_nan_and_leaves_its_batch_unchanged():
    truth, lung = _disc()
    image, _ = _disc(x0=2)
    both = _measured(
        jnp.stack([image, image]),
        jnp.stack([truth, truth]),
        jnp.stack([lung, jnp.zeros_like(lung)]),
    )
    assert both[0] == _moved(image, truth, lung)
    assert np.isnan(both[1])

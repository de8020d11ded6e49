"""Images without labels, in the network's unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.denoisers.generator import ImageGenerator, draw

OPTIONS = {"latent": 6, "reach": 0.5, "paired": True, "image_size": 8, "channels": 1}
GENERATOR = ImageGenerator(
    image_size=8, channels=1, low=-1.0, high=2.0, stored=(-9.0, 9.0), width=4
)


@pytest.mark.slow
def test_draws_depend_on_their_number_alone():
    whole = draw(0, jnp.arange(6, dtype=jnp.uint32), **OPTIONS)
    part = draw(0, jnp.arange(4, 6, dtype=jnp.uint32), **OPTIONS)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[4:], b), whole, part)
    other = draw(1, jnp.arange(6, dtype=jnp.uint32), **OPTIONS)
    assert np.all(other.noise != whole.noise)
    centers = whole.conditions.center
    np.testing.assert_array_equal(centers[0::2], centers[1::2])
    assert np.all(whole.noise[0] != whole.noise[1])


@pytest.mark.slow
def test_pixels_are_in_the_range_of_the_unit_and_noise_comes_on_top():
    drawn = draw(0, jnp.arange(4, dtype=jnp.uint32), **OPTIONS)
    params = jax.jit(GENERATOR.init)(jax.random.key(0), drawn)["params"]
    apply = jax.jit(GENERATOR.apply)
    quiet = drawn._replace(noise=jnp.zeros_like(drawn.noise))
    plain, noisy = (apply({"params": params}, given) for given in (quiet, drawn))
    assert plain.shape == (4, 8, 8, 1)
    assert -1 <= float(plain.min()) and float(plain.max()) <= 2
    level = np.std(noisy - plain, axis=(1, 2, 3))
    expected = np.exp(-2.5 + 0.5 * np.asarray(drawn.conditions.latent[:, 2]))
    # 64 numbers give a deviation to 9 %.
    np.testing.assert_allclose(level, expected, rtol=0.3)
    cut = GENERATOR.clone(stored=(-1.02, 2.01)).apply({"params": params}, drawn)
    np.testing.assert_allclose(cut, np.clip(noisy, -1.02, 2.01), atol=1e-5)
    assert float(cut.min()) == np.float32(-1.02) > float(noisy.min())

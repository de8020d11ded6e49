"""The published recipe against the published scripts' results for seven images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels import reference_noise
from ipv2.kernels.rotation_radon import create_rotation_tables
from tests.oracles import photon_noise as oracle
from tests.oracles.published import NAMES, published

SIZE = 256
TABLES = create_rotation_tables(SIZE)

line_integrals = jax.jit(reference_noise.line_integrals)
reconstruct = jax.jit(reference_noise.reconstruct)


def _circle(radius):
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    return row**2 + column**2 <= radius**2


@pytest.mark.parametrize("name", ["a1_25_soft", "wider_than_circle"])
def test_line_integrals_are_those_of_skimage(name):
    gt = published(name)["gt"]
    found = line_integrals(TABLES, gt.astype(np.float32))
    # float32: sums of 256 products, each rounded to 1e-7, over 500. Measured: 8e-8.
    np.testing.assert_allclose(found, oracle.reference_lines(gt), atol=2e-7)


@pytest.mark.parametrize("name", NAMES)
def test_image_of_the_published_draws_is_the_published_one(name):
    """The test injects the draws.

    NumPy's sampler rejects: a mean changed in its last bit may accept one draw more,
    and all that follow are others. So the means are scikit-image's, in float64.
    """
    pair = published(name)
    counts = oracle.reference_counts(oracle.reference_lines(pair["gt"]), seed=0)
    found = reconstruct(
        TABLES, counts.astype(np.float32), jnp.float32(oracle.photons(2.5))
    )
    difference = np.abs(np.asarray(found, int) - pair["noise_seed0"])
    print(f"{name}: {np.count_nonzero(difference)} pixels, {difference.max()} levels")
    # Before truncation float32 is off by 4e-4 levels at most (measured): a pixel is cut
    # to another level if it lies as near to one, 65,536 x 4e-4 = 26 pixels at most.
    assert difference.max() <= 1 and np.count_nonzero(difference) <= 26


def test_oracle_is_the_published_recipe_to_the_last_pixel():
    pair = published("phantom")
    made = oracle.reference_noise(pair["gt"], seed=0)
    np.testing.assert_array_equal(made, pair["noise_seed0"])


def _jackknife(statistic, sample):
    """A statistic of a sample and its standard error, leaving out one at a time."""
    left = np.array(
        [statistic(np.delete(sample, i, axis=0)) for i in range(len(sample))]
    )
    error = np.sqrt((len(left) - 1) / len(left) * np.sum((left - left.mean()) ** 2))
    return statistic(sample), error


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["a1_40_lung", pytest.param("wider_than_circle", marks=pytest.mark.long)]
)
def test_draws_of_our_own_have_the_published_mean_and_deviation(name):
    pair, seeds = published(name), 10
    keys = jax.random.split(jax.random.key(7), seeds)
    sample = np.asarray(
        reference_noise.simulate_reference_noise(keys, np.stack([pair["gt"]] * seeds)),
        np.float64,
    )[:, _circle(127)]
    mean, sd = (pair[kind][_circle(127)] for kind in ("noise_mean", "noise_sd"))
    # Pixel by pixel: Student's t of 10 and 20 images, 28 degrees of freedom, of which
    # one in 16 million is beyond 7.5. 1/16: noise_mean is rounded.
    variance = (9 * sample.var(axis=0, ddof=1) + 19 * sd**2) / 28
    spread = np.sqrt(variance * (1 / seeds + 1 / 20))
    assert np.all(np.abs(sample.mean(axis=0) - mean) <= 7.5 * spread + 1 / 16)
    # Over the image. Every image is stretched between its own extremes, so pixels are
    # not independent: the error is that of 10 images here and 20 there.
    for stored, statistic in (
        (mean.mean(), lambda images: images.mean()),
        (sd.mean(), lambda images: images.std(axis=0, ddof=1).mean()),
    ):
        found, error = _jackknife(statistic, sample)
        print(f"{name}: {found:.3f}, published {stored:.3f}, error {error:.3f}")
        assert abs(found - stored) <= 4 * np.sqrt(1 + seeds / 20) * error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "low", "high"), [("phantom", -10, 0), ("wider_than_circle", -80, -60)]
)
def test_a_body_wider_than_the_circle_is_darkened_by_its_own_rim(name, low, high):
    """The published fault, kept: the second min-max moves everything."""
    gt = published(name)["gt"].astype(np.float64)
    noisy = reference_noise.simulate_reference_noise(jax.random.key(0), gt)
    stretched = 255 * (gt - gt.min()) / (gt.max() - gt.min())
    inner = _circle(100)
    shift = (np.asarray(noisy, np.float64) - stretched)[inner].mean()
    stored = (published(name)["noise_mean"] - stretched)[inner].mean()
    print(f"{name}: {shift:.1f} levels, published {stored:.1f}")
    assert low < shift < high and low < stored < high


def test_an_image_of_one_level_becomes_noise_from_0_to_255():
    """0, not 0 / 0."""
    flat = np.full((64, 64), 80, np.uint8)
    noisy = reference_noise.simulate_reference_noise(jax.random.key(0), flat)
    noisy = np.asarray(noisy, np.float64)
    # Outside the circle the result is 0 before the second min-max.
    row, column = np.mgrid[:64, :64] - 32
    inside = row**2 + column**2 <= 32**2
    assert np.unique(noisy[~inside]).size == 1
    assert noisy.min() == 0 and noisy.max() == 255 and noisy[inside].std() > 10


def test_counts_of_zero_and_below_count_as_no_attenuation():
    tables = create_rotation_tables(16)
    full = jnp.full((16, 16), 100.0)
    starved = full.at[3, 5].set(0.0).at[8, 8].set(-4.0)
    np.testing.assert_array_equal(
        reconstruct(tables, starved, jnp.float32(100.0)),
        reconstruct(tables, full, jnp.float32(100.0)),
    )


def test_noise_of_a_slice_does_not_depend_on_its_batch():
    images = np.random.default_rng(0).random((3, 16, 16))
    keys = jax.random.split(jax.random.key(1), 3)
    together = reference_noise.simulate_reference_noise(keys, images)
    alone = reference_noise.simulate_reference_noise(keys[1:2], images[1:2])
    np.testing.assert_array_equal(together[1:2], alone)


@pytest.mark.parametrize("shape", [(20, 30), (8, 8), (64,)])
def test_images_that_are_not_square_or_too_small_are_refused(shape):
    with pytest.raises(ValueError, match="square images"):
        reference_noise.simulate_reference_noise(jax.random.key(0), np.ones(shape))

"""The Fourier projector against explicit sums, scikit-image and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from ipv2.kernels import projection
from tests.oracles.projection import (
    direct_radon,
    skimage_backprojection,
    skimage_sinogram,
)

# Kaiser-Bessel, W = 4, oversampling 2: gridding error about 1e-4 of the largest value
# (Beatty et al. 2005, figure 3); the sum of W^2 taps over two axes doubles it.
GRIDDING = 5e-4

# Shared by the tests of one small size: geometry and compiled functions are made once.
ANGLE = projection.uniform_angles(12)


def relative(actual, expected):
    return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)


def disc(size, radius, oversample=8):
    """Area of each pixel that a centred disc covers."""
    fine = (np.arange(size * oversample) + 0.5) / oversample - 0.5 - size // 2
    inside = fine[:, None] ** 2 + fine[None] ** 2 <= radius**2
    return inside.reshape(size, oversample, size, oversample).mean((1, 3))


@pytest.fixture(scope="module")
def head():
    image = resize(shepp_logan_phantom(), (192, 192), anti_aliasing=True)
    return (image * projection.inscribed_circle((192, 192))).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 16), (17, 17), (13, 22), (24, 15)])
def test_radon_equals_explicit_fourier_sums(shape):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *shape)).astype(np.float32)
    angle = rng.uniform(-7, 7, size=9)  # unsorted, negative, beyond a turn
    detectors = 27
    geometry = projection.create_geometry(shape, angle, detectors=detectors)
    actual = projection.radon(image, angle, detectors=detectors)
    for one, expected_of in zip(actual, image, strict=True):
        expected = direct_radon(
            expected_of, angle, detectors=detectors, padded=geometry.padded
        )
        assert relative(one, expected) < GRIDDING


def test_radon_at_right_angles_sums_columns_and_rows():
    image = np.random.default_rng(0).normal(size=(12, 12)).astype(np.float32)
    sinogram = np.asarray(projection.radon(image, [0.0, math.pi / 2, math.pi]))
    np.testing.assert_allclose(sinogram[0], image.sum(0), atol=0.01)
    # s = -y: rows are read upwards, from pixel 6 + 5 to pixel 6 - 5 (12 wraps to none).
    np.testing.assert_allclose(sinogram[1, 1:], image.sum(1)[:0:-1], atol=0.01)
    np.testing.assert_allclose(sinogram[2, 1:], image.sum(0)[:0:-1], atol=0.01)


def test_radon_agrees_with_skimage():
    # scikit-image interpolates linearly, which blurs by a fraction of a pixel: the same
    # object on fewer pixels differs more, so this is done at full size.
    image = resize(shepp_logan_phantom(), (512, 512), anti_aliasing=True)
    image = image * projection.inscribed_circle((512, 512))
    angle = projection.uniform_angles(16)
    expected = skimage_sinogram(image, angle)
    assert relative(projection.radon(image, angle), expected) < 0.005


def test_radon_of_a_disc_is_its_chord_in_mm():
    size, radius, spacing = 128, 40.0, 0.7
    image = disc(size, radius).astype(np.float32)
    sinogram = projection.radon(image, [0.0, 0.4, 2.0], spacing_mm=spacing)
    position = np.arange(size) - size // 2
    chord = 2 * spacing * np.sqrt(np.maximum(radius**2 - position**2, 0))
    # A band-limited disc rings at its edge: compare where the chord is smooth.
    smooth = np.abs(position) < radius - 4
    np.testing.assert_allclose(
        np.asarray(sinogram)[:, smooth],
        np.tile(chord[smooth], (3, 1)),
        rtol=0.01,
    )


@pytest.mark.parametrize("shape", [(20, 20), (15, 26)])
def test_backprojection_without_filter_is_the_exact_adjoint(shape):
    rng = np.random.default_rng(1)
    angle = ANGLE
    image = rng.normal(size=(3, *shape)).astype(np.float32)
    sinogram = projection.radon(image, angle, spacing_mm=0.8)
    other = rng.normal(size=sinogram.shape).astype(np.float32)
    back = projection.filtered_backprojection(
        other, angle, "none", shape=shape, spacing_mm=0.8
    )
    left = np.vdot(np.float64(sinogram), np.float64(other))
    right = np.vdot(np.float64(image), np.float64(back))
    scale = np.linalg.norm(sinogram) * np.linalg.norm(other)
    assert abs(left - right) < 1e-5 * min(abs(left), scale)


@pytest.mark.slow
def test_gradients_are_the_adjoints():
    rng = np.random.default_rng(2)
    angle = ANGLE
    image = jnp.asarray(rng.normal(size=(3, 20, 20)), jnp.float32)
    sinogram, vjp = jax.vjp(lambda x: projection.radon(x, angle), image)
    other = jnp.asarray(rng.normal(size=sinogram.shape), jnp.float32)
    (gradient,) = vjp(other)
    expected = projection.filtered_backprojection(other, angle, "none")
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)

    def reconstruct(x):
        return projection.filtered_backprojection(x, angle, "hann")

    filtered, vjp = jax.vjp(reconstruct, other)
    (gradient,) = vjp(image)
    # Linear and real: <B y, x> = <y, B' x>.
    left = float(jnp.vdot(filtered, image))
    right = float(jnp.vdot(other, gradient))
    assert left == pytest.approx(right, rel=1e-4)


@pytest.mark.slow
def test_jit_vmap_and_pmap_agree_with_eager():
    rng = np.random.default_rng(3)
    angle = ANGLE
    image = jnp.asarray(rng.normal(size=(4, 20, 20)), jnp.float32)
    geometry = projection.create_geometry((20, 20), angle)
    eager = projection.project(geometry, image)

    def one(x):
        return projection.project(geometry, x)

    # Other fusions, other order of additions: a few ulp of the largest value.
    close = {"rtol": 1e-5, "atol": 1e-5 * float(jnp.abs(eager).max())}
    np.testing.assert_allclose(projection.radon(image, angle), eager, **close)
    np.testing.assert_allclose(jax.vmap(one)(image), eager, **close)
    np.testing.assert_allclose(jax.pmap(one)(image), eager, **close)
    traced = jax.jit(lambda x: projection.radon(x, angle))(image)
    np.testing.assert_allclose(traced, eager, **close)


def test_radon_is_not_compiled_again_for_another_call_of_the_same_shape():
    angle = ANGLE
    rng = np.random.default_rng(4)
    image = rng.normal(size=(3, 20, 20)).astype(np.float32)
    projection.radon(image, angle, spacing_mm=[0.5, 0.8, 0.9])
    before = projection._jit_project._cache_size()
    projection.radon(image + 1, angle, spacing_mm=[0.7, 0.6, 1.0])
    assert projection._jit_project._cache_size() == before


@pytest.mark.slow
@pytest.mark.parametrize("filter_name", projection.FILTERS)
def test_filtered_backprojection_follows_skimage(head, filter_name):
    angle = projection.uniform_angles(90)
    sinogram = skimage_sinogram(head, angle).astype(np.float32)
    actual = projection.filtered_backprojection(
        sinogram, angle, filter_name, circle=True, linear_interpolation=True
    )
    if filter_name == "none":
        # scikit-image's scale, pi / 2n; ours is the bare adjoint.
        expected = skimage_backprojection(sinogram, angle, None) * 2 * 90 / math.pi
    else:
        expected = skimage_backprojection(sinogram, angle, filter_name)
    # The aliases of linear interpolation have the right power, not the right place.
    limit = {"ramp": 0.05, "shepp-logan": 0.04}.get(filter_name, 0.02)
    assert relative(actual, expected) < limit


@pytest.mark.slow
def test_reconstruction_has_no_bias():
    spacing = 0.9
    image = (0.02 * disc(96, 36)).astype(np.float32)
    angle = projection.uniform_angles(90)
    sinogram = projection.radon(image, angle, spacing_mm=spacing)
    again = projection.filtered_backprojection(
        sinogram, angle, "hann", spacing_mm=spacing
    )
    inner = disc(96, 28) == 1
    assert float(np.asarray(again)[inner].mean()) == pytest.approx(0.02, rel=1e-3)
    outer = (disc(96, 47) > 0) & (disc(96, 42) == 0)
    assert abs(float(np.asarray(again)[outer].mean())) < 0.02 * 2e-3


@pytest.mark.slow
def test_views_over_a_whole_turn_reconstruct_the_same():
    image = disc(20, 6).astype(np.float32)
    half = projection.uniform_angles(12)
    whole = np.concatenate([half, half + math.pi])
    one, two = (
        projection.filtered_backprojection(projection.radon(image, a), a, "hann")
        for a in (half, whole)
    )
    np.testing.assert_allclose(one, two, atol=2e-3)


def test_cutoff_softens():
    rng = np.random.default_rng(5)
    angle = ANGLE
    sinogram = rng.normal(size=(3, 12, 20)).astype(np.float32)
    sd = [
        float(
            projection.filtered_backprojection(
                sinogram, angle, "hann", cutoff=cutoff
            ).std()
        )
        for cutoff in (0.4, 0.7, 1.0)
    ]
    assert sd[0] < 0.7 * sd[1] < 0.7 * sd[2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: projection.radon(np.ones(5), [0.0]), ValueError, r"\(5,\)"),
        (lambda: projection.radon(np.ones((8, 8)), []), ValueError, "n >= 1"),
        (lambda: projection.radon(np.ones((8, 8)), [np.nan]), ValueError, "finite"),
        (lambda: projection.radon(np.ones((1, 8)), [0.0]), ValueError, "1 x 8"),
        (
            lambda: projection.radon(np.ones((8, 8)), [0.0], detectors=1),
            ValueError,
            "detectors = 1",
        ),
        (
            lambda: projection.radon(np.ones((8, 8)), [0.0], spacing_mm=0.0),
            ValueError,
            "above 0 mm",
        ),
        (
            lambda: projection.radon(np.ones((8, 8)), [0.0], spacing_mm=[1.0, 1.0]),
            ValueError,
            r"shape \(2,\)",
        ),
        (
            lambda: projection.filtered_backprojection(np.ones((2, 8)), [0.0]),
            ValueError,
            "2 views",
        ),
        (
            lambda: projection.filtered_backprojection(np.ones((1, 8)), [0.0], "hat"),
            ValueError,
            "shepp-logan",
        ),
        (
            lambda: projection.filtered_backprojection(
                np.ones((1, 8)), [0.0], cutoff=4.5
            ),
            ValueError,
            "cutoff = 4.5",
        ),
        (
            lambda: jax.jit(lambda a: projection.radon(np.ones((8, 8)), a))(
                jnp.zeros(3)
            ),
            TypeError,
            "outside jit",
        ),
        (lambda: projection.uniform_angles(0), ValueError, "views = 0"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""The fan beam against chords, the parallel projector and its own adjoint."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels import fan_beam, projection

SHAPE = (24, 24)
SPACING = 0.8
DISTANCE = 30.0
SOURCE = 0.3 + 2 * math.pi * np.arange(13) / 13
# Rays half a pixel apart at the centre; asin(radius / R) = 0.33 is covered.
FAN = (np.arange(61) - 30) * (0.5 * SPACING / DISTANCE)


def relative(actual, expected):
    return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)


def blob(size, centre, width):
    """A Gaussian: band-limited, and its line integrals are known."""
    row, column = np.mgrid[:size, :size] - size // 2
    x, y = centre
    return np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * width**2))


def test_rays_of_a_gaussian_are_its_line_integrals():
    centre, width = (3.0, -2.0), 1.6
    image = blob(24, centre, width).astype(np.float32)
    sinogram = fan_beam.fan_beam_radon(
        image, SOURCE, FAN, source_distance_mm=DISTANCE, spacing_mm=SPACING
    )
    # From the source's position and the ray's direction alone, in mm.
    beta, gamma = SOURCE[:, None], FAN[None]
    source = -DISTANCE * np.stack([np.sin(beta), np.cos(beta)])
    # Towards the centre, turned by gamma; x right, y down.
    x, y = np.sin(beta + gamma), np.cos(beta + gamma)
    to_x, to_y = (SPACING * c - s for c, s in zip(centre, source, strict=True))
    distance = (to_x * y - to_y * x) / SPACING
    expected = SPACING * width * math.sqrt(2 * math.pi)
    expected = expected * np.exp(-(distance**2) / (2 * width**2))
    # 2e-3: gridding, as the parallel projector, and the Gaussian's own band limit.
    assert relative(sinogram, expected) < 2e-3


@pytest.mark.slow
def test_rays_of_a_disc_are_its_chords():
    size, radius = 128, 40.0
    fine = (np.arange(size * 8) + 0.5) / 8 - 0.5 - size // 2
    image = (fine[:, None] ** 2 + fine[None] ** 2 <= radius**2).reshape(
        size, 8, size, 8
    )
    image = image.mean((1, 3)).astype(np.float32)
    distance_mm, spacing = 150.0, 0.9
    fan = (np.arange(121) - 60) * (0.6 / distance_mm)
    sinogram = fan_beam.fan_beam_radon(
        image,
        2 * math.pi * np.arange(7) / 7,
        fan,
        source_distance_mm=distance_mm,
        spacing_mm=spacing,
    )
    passes = distance_mm * np.sin(fan) / spacing
    chord = 2 * spacing * np.sqrt(np.maximum(radius**2 - passes**2, 0))
    # A band-limited disc rings at its edge, between bins more than at them (1.1 % and
    # 1.0 % of the chord 4 pixels inside): compare further inside.
    smooth = np.abs(passes) < radius - 8
    np.testing.assert_allclose(
        np.asarray(sinogram)[:, smooth], np.tile(chord[smooth], (7, 1)), rtol=0.01
    )


@pytest.mark.slow
def test_a_far_source_is_the_parallel_beam():
    # 1 / R = 1e-5 of the radius: rays bend by less than 1e-3 of a pixel.
    image = blob(24, (3.0, -2.0), 1.6).astype(np.float32)
    far = 1e6
    sinogram = fan_beam.fan_beam_radon(
        image, SOURCE, (np.arange(25) - 12) / far, source_distance_mm=far
    )
    expected = projection.radon(image, SOURCE, detectors=25)
    assert relative(sinogram, expected) < 1e-3


@pytest.mark.slow
def test_backprojection_without_filter_is_the_exact_adjoint():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    scan = {"source_distance_mm": DISTANCE, "spacing_mm": np.array([0.8, 0.9])}
    sinogram = fan_beam.fan_beam_radon(image, SOURCE, FAN, **scan)
    other = rng.normal(size=sinogram.shape).astype(np.float32)
    back = fan_beam.fan_beam_backprojection(
        other, SOURCE, FAN, "none", shape=SHAPE, **scan
    )
    left = np.vdot(np.float64(sinogram), np.float64(other))
    right = np.vdot(np.float64(image), np.float64(back))
    assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.slow
def test_gradient_of_the_reconstruction_is_its_adjoint():
    rng = np.random.default_rng(1)
    scan = {"source_distance_mm": DISTANCE, "spacing_mm": SPACING, "shape": SHAPE}

    def reconstruct(sinogram):
        return fan_beam.fan_beam_backprojection(sinogram, SOURCE, FAN, "hann", **scan)

    sinogram = jnp.asarray(rng.normal(size=(13, 61)), jnp.float32)
    image, transpose = jax.vjp(reconstruct, sinogram)
    other = jnp.asarray(rng.normal(size=image.shape), jnp.float32)
    (back,) = transpose(other)
    left = np.vdot(np.float64(image), np.float64(other))
    right = np.vdot(np.float64(sinogram), np.float64(back))
    assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("views", [256, 255])
def test_reconstruction_returns_the_phantom(views):
    size, spacing, distance = 64, 0.7, 60.0
    image = 0.02 * (
        blob(size, (0, 0), 12.0)
        + 0.5 * blob(size, (10.0, -6.0), 3.0)
        - 0.3 * blob(size, (-8.0, 9.0), 2.0)
    )
    source = 2 * math.pi * np.arange(views) / views
    fan = (np.arange(101) - 50) * (0.7 * spacing / distance)
    scan = {"source_distance_mm": distance, "spacing_mm": spacing}
    sinogram = fan_beam.fan_beam_radon(image, source, fan, **scan)
    again = fan_beam.fan_beam_backprojection(
        sinogram, source, fan, "ramp", shape=(size, size), circle=True, **scan
    )
    inside = projection.inscribed_circle((size, size))
    # 1 %: gridding, and the ramp's periodic tails.
    assert relative(np.asarray(again)[inside], image[inside]) < 0.01


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"source_distance_mm": 9.0},
            "above 9.6 mm, or the source lies inside",
        ),
        ({"source_distance_mm": math.inf}, "source_distance_mm = inf"),
        ({"source_angle_rad": projection.uniform_angles(12)}, "whole turn"),
        ({"source_angle_rad": [0.0, math.pi]}, "n >= 3"),
        ({"fan_angle_rad": FAN[::-1]}, "increasing"),
        ({"fan_angle_rad": 4 * FAN}, "quarter turn"),
        ({"spacing_mm": -1.0}, "above 0 mm"),
        ({"image": np.ones(24)}, r"\(24,\)"),
    ],
)
def test_bad_input_is_refused(fields, message):
    scan = {
        "image": np.ones(SHAPE),
        "source_angle_rad": SOURCE,
        "fan_angle_rad": FAN,
        "source_distance_mm": DISTANCE,
        "spacing_mm": SPACING,
    }
    with pytest.raises(ValueError, match=message):
        fan_beam.fan_beam_radon(**(scan | fields))


def test_sinograms_that_do_not_fit_their_angles_are_refused():
    with pytest.raises(ValueError, match="13 views and 60 rays"):
        fan_beam.fan_beam_backprojection(
            np.ones((13, 60)), SOURCE, FAN, shape=SHAPE, source_distance_mm=DISTANCE
        )
    with pytest.raises(TypeError, match="traced"):
        jax.jit(
            lambda angle: fan_beam.fan_beam_radon(
                np.ones(SHAPE), angle, FAN, source_distance_mm=DISTANCE
            )
        )(jnp.asarray(SOURCE))

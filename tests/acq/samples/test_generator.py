import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.classifier import Normalisation
from acq.layers.float import Conv
from acq.samples.conditions import Conditions
from acq.samples.generator import DoubledConv, Generator, window

CLASSES, COUNT, SIZE = 3, 8, 8
# Each form compiles for a second or two.
FORMS = [
    ("product", "none"),
    ("norm", "window"),
    ("norm", "latent"),
    *(
        pytest.param(*form, marks=pytest.mark.slow)
        for form in (("norm", "heat_map"), ("product", "latent"), ("norm", "none"))
    ),
]


def conditions(seed=0):
    rng = np.random.default_rng(seed)
    return Conditions(
        jnp.asarray(rng.normal(size=(COUNT, 5)), jnp.float32),
        jnp.asarray(np.arange(COUNT) % CLASSES, jnp.int32),
        jnp.asarray(rng.uniform(-0.6, 0.6, (COUNT, 2)), jnp.float32),
        jnp.zeros((COUNT, 2), jnp.int32),
    )


def create(label="norm", center="heat_map", axis_name=None):
    return Generator(
        image_size=SIZE,
        channels=3,
        classes=CLASSES,
        width=4,
        label=label,
        center=center,
        reach=0.6,
        axis_name=axis_name,
    )


@functools.cache
def params_of(label="norm", center="heat_map"):
    """Drawn by shape: an initialisation would have to be compiled."""
    shapes = jax.eval_shape(create(label, center).init, jax.random.key(0), conditions())
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        around = 1 if path[-1].key.endswith("_scale") else 0
        return jnp.asarray(rng.normal(around, 0.4, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes["params"])


@functools.cache
def compiled(label="norm", center="heat_map"):
    """(images, gradient of a weighted sum of them) of parameters and conditions."""
    generator = create(label, center)
    weights = np.random.default_rng(2).normal(size=(COUNT, SIZE, SIZE, 3))

    def value(params, given):
        images = generator.apply({"params": params}, given)
        return jnp.sum(images * jnp.asarray(weights, jnp.float32)), images

    gradient = jax.jit(jax.grad(value, has_aux=True))
    return lambda params, given: gradient(params, given)[::-1]


def images_of(given, label="norm", center="heat_map"):
    return np.asarray(compiled(label, center)(params_of(label, center), given)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("label", "center"), FORMS)
def test_images_are_normalised_and_every_parameter_has_a_gradient(label, center):
    images, gradient = compiled(label, center)(params_of(label, center), conditions())
    assert images.shape == (COUNT, SIZE, SIZE, 3) and images.dtype == jnp.float32
    np.testing.assert_allclose(np.mean(images, (0, 1, 2)), 0, atol=1e-5)
    # Less than 1 by epsilon over the variance of tanh's output.
    np.testing.assert_allclose(np.var(images, (0, 1, 2)), 1, atol=5e-3)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-4, name


NORMALISATION = Normalisation(mean=(0.2, 0.5, 0.9), std=(0.1, 0.2, 0.3))


@functools.cache
def pixels_of():
    """The generator's function, and parameters of it."""
    generator = create("norm", "none").clone(pixels=NORMALISATION)
    shapes = jax.eval_shape(generator.init, jax.random.key(0), conditions())["params"]
    rng = np.random.default_rng(3)

    def draw(path, leaf):
        around = 1 if path[-1].key.endswith("_scale") else 0
        return jnp.asarray(rng.normal(around, 1.0, leaf.shape), jnp.float32)

    def value(params, given):
        images = generator.apply({"params": params}, given)
        return jnp.mean(images), NORMALISATION.denormalise(images)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    return jax.jit(jax.grad(value, has_aux=True)), params


@pytest.mark.slow
def test_pixels_are_of_images_that_a_camera_could_have_taken():
    make, params = pixels_of()
    bright = {**params, "color": jax.tree.map(lambda leaf: 30 * leaf, params["color"])}
    gradient, images = make(bright, conditions())
    # Sigmoids of far-off values, from float32's rounding.
    assert images.min() > -1e-6 and images.max() < 1 + 1e-6
    assert images.min() < 0.01 and images.max() > 0.99
    gradient, _ = make(params, conditions())
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-6, name


def test_colour_and_contrast_are_the_latent_s_and_not_the_class_s():
    make, params = pixels_of()
    given = conditions()

    def tones(given):
        images = np.asarray(make(params, given)[1], np.float64).clip(1e-6, 1 - 1e-6)
        logits = np.log(images / (1 - images))
        return logits.mean((1, 2)), logits.std((1, 2, 3)), logits

    mean, spread, before = tones(given)
    relabelled = given._replace(label=(given.label + 1) % CLASSES)
    same_mean, same_spread, after = tones(relabelled)
    assert np.abs(after - before).max() > 0.1
    # Logits of pixels near 0 and 1 are of few digits, and clipped at 14.
    np.testing.assert_allclose(same_mean, mean, atol=1e-2)
    np.testing.assert_allclose(same_spread, spread, rtol=1e-2)
    other_mean, other_spread, _ = tones(conditions(seed=1))
    assert np.abs(other_mean - mean).max() > 0.1
    assert np.abs(other_spread / spread - 1).max() > 0.1


@pytest.mark.slow
def test_at_first_colour_is_drawn_channel_by_channel():
    """By the first numbers of the latent, with a spread of 1."""
    generator = create("norm", "none").clone(pixels=NORMALISATION)
    key = jax.random.key(0)
    start = jax.jit(generator.init)(key, conditions())["params"]
    np.testing.assert_array_equal(start["color"]["kernel"], np.eye(3))


def test_a_window_shows_features_moved():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3, 8, 8, 2)).astype("f")  # 4, and 2 on each side
    moved = jnp.asarray([[0, 0], [1, -2], [0.25, 0]], jnp.float32)
    found = np.asarray(window(jnp.asarray(x), moved, 4))
    np.testing.assert_allclose(found[0], x[0, 2:6, 2:6], rtol=1e-5)
    # One to the right: what was one to the left; two up: what was two down.
    np.testing.assert_allclose(found[1], x[1, 4:8, 1:5], rtol=1e-5)
    between = 0.75 * x[2, 2:6, 2:6] + 0.25 * x[2, 2:6, 1:5]
    np.testing.assert_allclose(found[2], between, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "center"), [("product", "none"), ("norm", "heat_map")]
)
def test_its_class_changes_a_sample(label, center):
    given = conditions()
    before = images_of(given, label, center)
    other = given._replace(label=given.label.at[0].set(1))
    moved = np.abs(images_of(other, label, center) - before).max((1, 2, 3))
    assert moved[0] > 0.1
    # The others only by the batch's statistics.
    assert moved[1:].max() < moved[0] / 2


@pytest.mark.slow
@pytest.mark.parametrize(("label", "center"), FORMS)
def test_the_centre_changes_a_sample_unless_there_is_none(label, center):
    given = conditions()
    other = given._replace(center=-given.center)
    moved = np.abs(images_of(other, label, center) - images_of(given, label, center))
    assert moved.max() == 0 if center == "none" else moved.max() > 0.1


def test_a_heat_map_changes_images_where_it_lies():
    given = conditions()
    images = [
        images_of(given._replace(center=jnp.asarray(np.full((COUNT, 2), place, "f"))))
        for place in (-0.75, 0.75)
    ]
    # Normalisation moves every pixel a little.
    moved = np.abs(images[0] - images[1]).mean((0, 3))
    corners, middle = moved[[1, -2], [1, -2]], moved[[1, -2], [-2, 1]]
    # The map beside the small features reaches further than that beside the large.
    assert corners.min() > middle.max() and corners.mean() > 1.5 * middle.mean()


@pytest.mark.slow
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_devices_make_the_images_of_the_joined_batch(devices):
    given, params = conditions(), params_of()
    shards = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), given)
    made = jax.pmap(
        lambda params, shard: create(axis_name="batch").apply(
            {"params": params}, shard
        ),
        axis_name="batch",
        in_axes=(None, 0),
        devices=jax.devices()[:devices],
    )(params, shards)
    # Statistics in float32, summed in another order.
    np.testing.assert_allclose(
        np.reshape(made, (COUNT, SIZE, SIZE, 3)), images_of(given), atol=1e-5
    )


@pytest.mark.slow
def test_initial_parameters_are_as_published():
    init = jax.jit(create("product", "none").init)
    params = init(jax.random.key(0), conditions())["params"]
    for stage in range(3):
        np.testing.assert_array_equal(params[f"norm{stage}_scale"], 1)
        np.testing.assert_array_equal(params[f"norm{stage}_offset"], 0)
    generator = create("norm", "none").clone(spread=0)
    by_class = jax.jit(generator.init)(jax.random.key(0), conditions())["params"]
    for stage in range(3):
        np.testing.assert_array_equal(by_class[f"norm{stage}_scale"], 1)
        np.testing.assert_array_equal(by_class[f"norm{stage}_offset"], 0)
    # A place of its own for every class.
    assert params["label"]["embedding"].shape == (CLASSES, 5)
    assert params_of("norm")["norm2_scale"].shape == (CLASSES, 2)


@pytest.mark.slow
def test_enlarging_convolution_is_that_of_repeated_pixels():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32)
    doubled = DoubledConv(6, 3, padding=1)
    variables = jax.jit(doubled.init)(jax.random.key(0), x)
    repeated = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    plain = Conv(6, 3, padding=1).apply(variables, jnp.asarray(repeated))
    np.testing.assert_allclose(doubled.apply(variables, x), plain, rtol=1e-5, atol=1e-5)


def test_sizes_that_cannot_be_quartered_are_refused():
    generator = create().clone(image_size=10)
    with pytest.raises(ValueError, match="multiple of 4: 10"):
        jax.eval_shape(generator.init, jax.random.key(0), conditions())

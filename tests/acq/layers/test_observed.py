import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from acq.kernels.fake_quant import fake_quant
from acq.kernels.grid import Grid
from acq.layers.float import FloatLayers
from acq.layers.observed import (
    GaussianNorm,
    RangeLayers,
    ranges_as_observed,
    ranges_from_images,
    ranges_from_statistics,
    value_range,
)
from tests.acq.models.small import create_small, random_images, random_variables
from tests.acq.own_network import PlainNet
from tests.acq.quantized import create, float_variables, quant_layers

CLASSES = 5
EPSILON = float(np.finfo(np.float32).eps)


def layers(others=None, method="minmax"):
    return RangeLayers(
        activations=Grid(4), others=others and Grid(others), method=method
    )


def plain_net():
    return PlainNet(FloatLayers(), CLASSES, width=4)


@functools.cache
def images():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(4, 8, 8, 3)), jnp.float32)


@functools.cache
def variables():
    return random_variables(plain_net(), images())


def error(values, low, high, grid):
    quantized = fake_quant(values, low, high, grid=grid, gradient="identity")
    return float(jnp.mean(jnp.square(quantized - values)))


def test_norm_draws_a_normal_of_its_parameters_whatever_comes_in():
    scale, bias = np.float32([1, 0.5, 2]), np.float32([0, -3, 5])
    given = {"params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}}

    @jax.jit
    def draw(x, seed):
        rngs = {"gaussian": jax.random.key(seed)}
        return GaussianNorm().apply(given, x, rngs=rngs)

    shape = (20, 10, 10, 3)
    drawn = np.asarray(draw(jnp.asarray(np.zeros(shape, "f")), 0), np.float64)
    anything = jnp.asarray(np.full(shape, 1e6, "f"))
    np.testing.assert_array_equal(drawn, draw(anything, 0))
    assert np.mean(drawn == draw(anything, 1)) < 0.01
    values = (drawn.reshape(-1, 3) - bias) / scale
    count = len(values)
    # Five standard errors of the moments of 2,000 draws.
    np.testing.assert_allclose(values.mean(0), 0, atol=5 / count**0.5)
    np.testing.assert_allclose(values.var(0), 1, atol=5 * (2 / count) ** 0.5)
    np.testing.assert_allclose((values**3).mean(0), 0, atol=5 * (15 / count) ** 0.5)
    np.testing.assert_allclose((values**4).mean(0), 3, atol=5 * (96 / count) ** 0.5)
    between = np.corrcoef(values.T)[np.triu_indices(3, 1)]
    assert np.abs(between).max() < 5 / count**0.5


@pytest.mark.slow
def test_ranges_from_statistics_are_those_of_the_normals():
    """Every activation of PlainNet is the ReLU of one normalisation's output."""
    found = ranges_from_statistics(
        plain_net(), layers(), variables(), (64, 8, 8, 3), jax.random.key(0)
    )
    for i in range(3):
        bn = variables()["params"][f"bn{i}"]
        ends = found[f"act{i}"]
        assert ends["low"] == 0
        # The greatest of a few hundred or thousand normals is 2.5 to 5.5 sigma up.
        scale = np.abs(bn["scale"])
        assert np.max(bn["bias"] + 2.5 * scale) < ends["high"]
        assert ends["high"] < np.max(bn["bias"] + 5.5 * scale)


@pytest.mark.slow
def test_ranges_from_statistics_do_not_read_running_statistics():
    shape, rng = (2, 8, 8, 3), jax.random.key(0)
    changed = jax.tree.map(lambda x: x + 5, variables()["batch_stats"])
    one, other = (
        ranges_from_statistics(plain_net(), layers(), given, shape, rng)
        for given in (variables(), {**variables(), "batch_stats": changed})
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_pixels_that_are_the_same_are_drawn_once_an_image():
    given = {"params": {"scale": jnp.float32([1, 2]), "bias": jnp.float32([0, 5])}}
    drawn = np.asarray(
        GaussianNorm(same_pixels=True).apply(
            given,
            jnp.zeros((500, 3, 4, 2)),
            rngs={"gaussian": jax.random.key(0)},
        )
    )
    assert np.ptp(drawn, axis=(1, 2)).max() == 0
    values = drawn[:, 0, 0]
    # Five standard errors of the moments of 500 draws.
    np.testing.assert_allclose(values.mean(0), [0, 5], atol=5 * 2 / 500**0.5)
    np.testing.assert_allclose(values.std(0), [1, 2], rtol=5 / 1000**0.5)


def _ranges_of_statistics(method="minmax", **more):
    return ranges_from_statistics(
        plain_net(),
        dataclasses.replace(layers(method=method), **more),
        variables(),
        (8, 32, 32, 3),
        jax.random.key(0),
    )


@pytest.mark.slow
def test_the_mean_over_pixels_has_the_range_of_an_image_whose_pixels_are_alike():
    found = _ranges_of_statistics(others=Grid(8))
    assert set(found) == {"act0", "act1", "act2", "quant_input", "quant_pooled"}
    bn = variables()["params"]["bn2"]
    mean, scale = bn["bias"], np.abs(bn["scale"])
    low, high = (float(found["quant_pooled"][end]) for end in ("low", "high"))
    rectified = mean * norm.cdf(mean / scale) + scale * norm.pdf(mean / scale)
    # Means of 64 independent pixels stay within a few eighths of an sd; one of 8 images
    # whose pixels are alike is an sd up.
    assert 2 * np.max(rectified) < np.max(mean + scale)
    assert low == 0 and np.max(mean + scale) < high < np.max(mean + 4 * scale)


@pytest.mark.slow
def test_8_bits_of_other_tensors_have_twice_the_range_of_draws():
    """The input is drawn too: 24,576 normals reach 3.5 to 5.5."""
    for method in ("minmax", "mse"):
        ends = _ranges_of_statistics(method, others=Grid(8))["quant_input"]
        assert -11 < ends["low"] < -7 and 7 < ends["high"] < 11
    for changes in (
        {"others": Grid(7)},
        {"others": Grid(8), "bits": (("quant_input", 7),)},
    ):
        ends = _ranges_of_statistics(**changes)["quant_input"]
        assert -5.5 < ends["low"] < -3.5 and 3.5 < ends["high"] < 5.5


@pytest.mark.slow
def test_rectified_values_keep_the_range_of_draws():
    with_others, alone = _ranges_of_statistics(others=Grid(8)), _ranges_of_statistics()
    for name, ends in alone.items():
        jax.tree.map(np.testing.assert_array_equal, with_others[name], ends)


@pytest.mark.parametrize(
    "name",
    ["own", "mobilenet", pytest.param("basic", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("others", [None, 8])
def test_ranges_are_the_tree_that_a_quantized_network_reads(name, others):
    given, x = float_variables(name)
    network = create(name, FloatLayers())
    student = create(name, quant_layers(4, others=others))
    expected = jax.eval_shape(student.init, jax.random.key(0), x)["ranges"]
    for found in (
        jax.eval_shape(lambda: ranges_from_images(network, layers(others), given, [x])),
        jax.eval_shape(
            lambda: ranges_from_statistics(
                network, layers(others), given, x.shape, jax.random.key(0)
            )
        ),
    ):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        assert found == expected


def test_ranges_from_images_are_the_mean_of_the_batches_ends():
    batches = [images(), 2 * images()]
    found = ranges_from_images(plain_net(), layers(), variables(), iter(batches))

    @jax.jit
    def activations(x):
        _, shown = plain_net().apply(variables(), x, mutable=["activations"])
        return shown["activations"]

    shown = [activations(x) for x in batches]
    for name in ("act0", "act1", "act2"):
        outputs = [np.asarray(batch[name]["output"]) for batch in shown]
        expected = np.mean([output.max() for output in outputs])
        np.testing.assert_allclose(found[name]["high"], expected, rtol=1e-6)
        assert found[name]["low"] == np.mean([output.min() for output in outputs])


def test_networks_without_identity_marks_have_ranges_of_their_rectifiers_only():
    network, x = create_small("cifar"), random_images("cifar")
    found = jax.eval_shape(
        lambda: ranges_from_images(network, layers(), random_variables(network, x), [x])
    )
    paths = jax.tree_util.tree_leaves_with_path(found)
    names = {path[-2].key for path, _ in paths}
    assert names == {"act1", "act2"}


@pytest.mark.slow
def test_observed_ranges_average_the_ends_that_the_student_meets():
    student = plain_net().clone(layers=quant_layers(4))

    def observed(count, decay):
        batches = (size * images() for size in (1.0, 2.0)[:count])
        found = ranges_as_observed(student, variables(), batches, decay=decay)
        return {name: float(ends["high"]) for name, ends in found.items()}

    @jax.jit
    def meets(variables, x, ranges):
        given = {**variables, "ranges": ranges}
        return student.apply(given, x, mutable=["observed"])[1]["observed"]

    none = {f"act{i}": {"low": jnp.nan, "high": jnp.nan} for i in range(3)}
    first = meets(variables(), images(), jax.tree.map(jnp.float32, none))
    second = meets(variables(), 2 * images(), first)
    one, two, both = observed(1, 0.9), observed(2, 0.0), observed(2, 0.9)
    for name in none:
        ends = float(first[name]["high"]), float(second[name]["high"])
        assert ends[1] > 1.1 * ends[0]
        # Other programs add a convolution's 36 products in another order.
        same = functools.partial(np.testing.assert_allclose, rtol=36 * EPSILON)
        same((one[name], two[name]), ends)
        same(both[name], 0.9 * ends[0] + 0.1 * ends[1])


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        ranges_from_images(plain_net(), layers(), variables(), [])
    with pytest.raises(ValueError, match="at least one batch"):
        ranges_as_observed(plain_net(), variables(), [], decay=0.9)


def _values(kind, count=3000):
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.normal(size=count),
        "rectified": np.maximum(rng.normal(size=count), 0),
        "outlier": np.append(np.maximum(rng.normal(size=count - 1), 0), 20.0),
        "uniform": rng.uniform(0, 1, count),
    }[kind]
    return jnp.asarray(values, jnp.float32)


@pytest.mark.parametrize("kind", ["normal", "rectified", "outlier", "uniform"])
def test_mse_ranges_have_less_error_than_the_whole_range(kind):
    values, grid = _values(kind), Grid(3)
    low, high = value_range(values, grid, "minmax")
    assert (low, high) == (values.min(), values.max())
    inner_low, inner_high = value_range(values, grid, "mse")
    assert abs(inner_low) <= abs(low) and 0 < inner_high <= high
    # The same share of both ends, one of 64.
    share = 64 * float(inner_high / high)
    np.testing.assert_allclose(share, round(share), atol=1e-4)
    np.testing.assert_allclose(inner_low, low * inner_high / high, rtol=1e-5)
    whole = error(values, low, high, grid)
    least = error(values, inner_low, inner_high, grid)
    if kind == "uniform":
        assert least <= whole and inner_high > 0.9 * high
    else:
        assert least < 0.9 * whole
    # No other share is better.
    for other in (0.25, 0.5, 0.75, 1):
        assert least <= error(values, low * other, high * other, grid)


@pytest.mark.slow
def test_mse_takes_a_sample_of_large_tensors():
    """Of all channels, though there are as many as values for each that is taken."""
    channels = 16
    values = np.array(_values("uniform", channels << 16)).reshape(64, 32, 32, channels)
    values[..., 0] *= 0.01
    values = jnp.asarray(values)
    low, high = value_range(values, Grid(4), "mse")
    # All channels but the first are uniform up to 1; the first would take 1/64.
    assert high > 0.9
    assert error(values, low, high, Grid(4)) <= error(values, low, 0.5 * high, Grid(4))


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_tensor_of_zeros_has_the_range_zero(method):
    zeros = jnp.asarray(np.zeros(100, "f"))
    assert value_range(zeros, Grid(4), method) == (0, 0)

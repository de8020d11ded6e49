import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ipv2.models import FLOWS, MODELS, create_model, hu_to_unit, unit_to_hu
from ipv2.models.blocks import Conv

SMALL = {
    "cnn10": {},
    "dncnn": {"width": 8, "depth": 4},
    "nafnet": {
        "width": 4,
        "encoder_blocks": (1,),
        "middle_blocks": 1,
        "decoder_blocks": (1,),
    },
    "redcnn": {"width": 4},
    "restormer": {
        "width": 8,
        "blocks": (1, 1),
        "heads": (1, 2),
        "refinement_blocks": 1,
    },
    "unet": {"width": 4, "levels": 2},
}
# Flow models have tests of their own.
REGRESSION = sorted(set(MODELS) - FLOWS)


def random_image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def count_parameters(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("redcnn", 1_848_865), ("cnn10", 24_513)],
)
def test_parameter_count_is_the_published_one(name, expected):
    model = create_model(name)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    assert count_parameters(variables) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("size", [(21, 21), (30, 23), (512, 511)])
def test_any_image_size_comes_back(name, size):
    x = jax.ShapeDtypeStruct((2, *size, 1), jnp.float32)
    y, _ = jax.eval_shape(create_model(name).init_with_output, jax.random.key(0), x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("name", REGRESSION)
def test_an_untrained_network_nearly_returns_its_input(name):
    x = random_image(2, 32, 32, 1)
    model = create_model(name, **SMALL[name])
    y, _ = jax.jit(model.init_with_output)(jax.random.key(0), x)
    error = float(jnp.std(y - x))
    assert 0 < error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", REGRESSION)
def test_every_gradient_leaf_is_finite_and_not_zero(name):
    model = create_model(name, **SMALL[name])
    x, y = random_image(2, 24, 24, 1), random_image(2, 24, 24, 1, seed=1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    gradients = jax.jit(
        jax.grad(lambda v: jnp.mean(jnp.square(model.apply(v, x) - y)))
    )(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


@pytest.mark.slow
@pytest.mark.parametrize("name", REGRESSION)
def test_bfloat16_stays_within_a_few_hu_and_keeps_float32_parameters(name):
    x = random_image(1, 24, 24, 1)
    model = create_model(name, **SMALL[name])
    variables = jax.jit(model.init)(jax.random.key(0), x)
    half = create_model(name, dtype=jnp.bfloat16, **SMALL[name])
    initial = jax.eval_shape(half.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {np.dtype("float32")}
    full, output = jax.jit(model.apply)(variables, x), jax.jit(half.apply)(variables, x)
    assert output.dtype == jnp.float32
    # Only what is added to the input is rounded, to 8 bits a layer: a twentieth of it.
    added = float(jnp.max(jnp.abs(full - x)))
    np.testing.assert_allclose(output, full, rtol=0, atol=0.05 * added)
    assert np.any(output != full)


@pytest.mark.slow
def test_redcnn_learns_to_halve_its_input():
    model = create_model("redcnn", width=4)
    x = random_image(2, 24, 24, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(variables, state):
        def loss(v):
            return jnp.mean(jnp.square(model.apply(v, x) - 0.5 * x))

        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, value

    state, losses = optimizer.init(variables), []
    for _ in range(40):
        variables, state, value = step(variables, state)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_redcnn_sees_the_whole_slice_as_it_sees_its_parts():
    # 10 layers of 5x5 see 20 pixels around: far from borders a crop gives the same.
    model = create_model("redcnn", width=4)
    x = random_image(1, 100, 100, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(model.apply)
    whole = apply(variables, x)[:, 40:60, 40:60]
    crop = apply(variables, x[:, 10:90, 10:90])[:, 30:50, 30:50]
    # float32 sums in another order; outputs are of order 1.
    np.testing.assert_allclose(crop, whole, rtol=1e-5, atol=1e-5)


def test_published_cnn10_has_no_residual():
    x = random_image(1, 16, 16, 1)
    model = create_model("cnn10", residual=False)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    zeroed = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    np.testing.assert_array_equal(model.apply(zeroed, x), 0)
    np.testing.assert_array_equal(create_model("cnn10").apply(zeroed, x), x)


def test_cnn10_keeps_air_air_up_to_the_border():
    # Continued by its edge, a constant image stays constant whatever the weights are.
    model = create_model("cnn10")
    x = jnp.full((1, 16, 16, 1), -1.0)
    y, _ = jax.jit(model.init_with_output)(jax.random.key(0), x)
    # float32 rounding of sums that a fast convolution may order differently.
    np.testing.assert_allclose(y, y[0, 8, 8, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("padding", "flax_padding"), [("same", "SAME"), ("valid", "VALID"), ("full", 4)]
)
def test_conv_is_flax_conv_with_the_same_parameters(padding, flax_padding):
    x = random_image(2, 12, 11, 3)
    layer = Conv(features=6, kernel_size=5, padding=padding)
    flax_layer = nn.Conv(6, (5, 5), padding=flax_padding)
    variables = flax_layer.init(jax.random.key(0), x)
    variables["params"]["bias"] += 1.0
    # Sums of 75 float32 products of order 1.
    np.testing.assert_allclose(
        layer.apply(variables, x), flax_layer.apply(variables, x), rtol=1e-5, atol=1e-5
    )


def test_full_padding_is_a_transposed_convolution_with_a_flipped_kernel():
    x = random_image(2, 6, 7, 3)
    transposed = nn.ConvTranspose(4, (5, 5), padding="VALID")
    variables = transposed.init(jax.random.key(0), x)
    expected = transposed.apply(variables, x)
    np.testing.assert_allclose(
        Conv(4, 5, "full").apply(variables, x), expected, rtol=1e-5, atol=1e-5
    )
    # flax does not flip the kernel; gradient-based transposition (PyTorch's) does.
    gradient_based = nn.ConvTranspose(4, (5, 5), padding="VALID", transpose_kernel=True)
    kernel = variables["params"]["kernel"]
    flipped = {
        "params": {
            "kernel": kernel[::-1, ::-1].swapaxes(2, 3),
            "bias": variables["params"]["bias"],
        }
    }
    np.testing.assert_allclose(
        gradient_based.apply(flipped, x), expected, rtol=1e-5, atol=1e-5
    )


def test_units_are_water_zero_and_air_minus_one():
    hu = jnp.asarray([-1000.0, 0.0, 40.0, 3000.0])
    np.testing.assert_allclose(hu_to_unit(hu), [-1.0, 0.0, 0.04, 3.0], rtol=1e-7)
    back = unit_to_hu(hu_to_unit(hu))
    assert back.dtype == jnp.float32
    np.testing.assert_allclose(back, hu, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        (
            "RED-CNN",
            {},
            r"no model is called 'RED-CNN'; accepted: \['cnn10', 'ffm', 'fm', 'redcnn'",
        ),
        ("cnn10", {"width": 3}, r"cnn10 has no \['width'\]; accepted: \['dtype'"),
    ],
)
def test_create_model_names_what_is_accepted(name, attributes, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **attributes)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 20, 64, 1), "at least 21x21 pixels, got 20x64"),
        ((1, 64, 64, 3), r"shape \(n, h, w, 1\), got \(1, 64, 64, 3\)"),
        ((64, 64, 1), r"shape \(n, h, w, 1\), got \(64, 64, 1\)"),
    ],
)
def test_redcnn_refuses_images_it_cannot_take(shape, message):
    with pytest.raises(ValueError, match=message):
        create_model("redcnn").init(jax.random.key(0), jnp.zeros(shape))


def test_conv_refuses_unknown_padding_and_even_same():
    x = jnp.zeros((1, 8, 8, 1))
    with pytest.raises(ValueError, match="'same' padding needs an odd kernel, got 4x4"):
        Conv(2, 4, "same").init(jax.random.key(0), x)

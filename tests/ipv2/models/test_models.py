import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ipv2.models import FLOWS, MODELS, create_model, hu_to_unit, unit_to_hu
from tests.ipv2.models.small import create_small, random_image, random_variables

# Flow networks have tests of their own.
NAMES = sorted(set(MODELS) - FLOWS)
# Compilation takes these several seconds, the others less than one.
LONG = ("nafnet", "restormer", "unet")
SOME_LONG = [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
    for name in NAMES
]
# Whose results depend on the whole image.
GLOBAL = ("nafnet", "restormer")
WITH_REMAT = ("dncnn", "nafnet", "restormer", "unet")


def count_parameters(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("cnn10", 1, 24_513),
        ("redcnn", 1, 1_848_865),
        # Authors' PyTorch code: 2 * 576 + 15 * (9 * 64 * 64 + 128) + 64.
        ("dncnn", 1, 556_096),
        # 29.16 M and 26.13 M: three channels in, and two more out of the last 3x3
        # convolution than ours has, with a bias in NAFNet's.
        pytest.param(
            "nafnet", 3, 29_159_715 - 2 * (9 * 32 + 1), marks=pytest.mark.slow
        ),
        pytest.param("restormer", 3, 26_126_644 - 2 * (9 * 96), marks=pytest.mark.slow),
    ],
)
def test_parameter_count_is_the_published_one(name, channels, expected):
    model = create_model(name, channels=channels)
    x = jnp.zeros((1, 32, 32, channels))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert count_parameters(variables["params"]) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_unet_has_the_parameters_of_its_layers():
    x = jnp.zeros((1, 8, 8, 1))
    model = create_model("unet", levels=1)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    down, middle, double = 320 + 9_248, 18_496 + 36_928, 4 * 64 * 32 + 32
    up, last = 18_464 + 9_248, 33
    assert count_parameters(variables) == down + middle + double + up + last


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_image_size_comes_back_from_any_number_of_slices(name):
    for channels, h, w in ((1, 1, 2), (3, 512, 511)):
        model = create_small(name, channels=channels)
        x = jax.ShapeDtypeStruct((2, h, w, channels), jnp.float32)
        y, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
        assert (y.shape, y.dtype) == ((2, h, w, 1), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME_LONG)
def test_an_untrained_network_nearly_returns_the_slice_in_the_middle(name):
    x = random_image(2, 13, 11, 3)
    model = create_small(name, channels=3)
    y, _ = jax.jit(model.init_with_output)(jax.random.key(0), x)
    error = float(jnp.std(y - x[..., 1:2]))
    assert 0 < error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_gradient_leaf_is_finite_and_not_zero(name):
    # Off the initial values: NAFNet's blocks start with beta = gamma = 0, which stops
    # the gradient of all that these multiply.
    x, y = random_image(2, 14, 11, 3), random_image(2, 14, 11, 1, seed=1)
    results = []
    for attributes in ({}, {"remat": True})[: 1 + (name in WITH_REMAT)]:
        model = create_small(name, channels=3, **attributes)
        variables = random_variables(model, x)

        @jax.jit
        def loss_and_gradients(variables, model=model):
            def loss(params):
                output, _ = model.apply(
                    {**variables, "params": params},
                    x,
                    train=True,
                    mutable=["batch_stats"],
                )
                return jnp.mean(jnp.square(output - y))

            return jax.value_and_grad(loss)(variables["params"])

        results.append(loss_and_gradients(variables))
    for path, leaf in jax.tree_util.tree_leaves_with_path(results[0][1]):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path
    # Recomputed in another order of float32 sums, of order 1 to 10.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        results[0],
        results[-1],
    )


@pytest.mark.slow
def test_nafnet_with_beta_and_gamma_zero_moves_these_and_what_is_outside_blocks():
    # They start at zero.
    x, y = random_image(1, 8, 8, 1), random_image(1, 8, 8, 1, seed=1)
    model = create_small("nafnet")
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (path[-1].key not in ("beta", "gamma")),
        random_variables(model, x),
    )
    gradients = jax.jit(
        jax.grad(lambda v: jnp.mean(jnp.square(model.apply(v, x) - y)))
    )(variables)["params"]
    for name, block in gradients.items():
        if "beta" in block:
            assert np.any(block.pop("beta") != 0), name
            assert np.any(block.pop("gamma") != 0), name
            assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(block)), name
        else:
            assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(block)), name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_within_a_few_hu_and_keeps_float32_parameters(name):
    x = random_image(1, 12, 12, 1)
    model = create_small(name)
    half = create_small(name, dtype=jnp.bfloat16)
    variables = random_variables(half, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    full, output = jax.jit(model.apply)(variables, x), jax.jit(half.apply)(variables, x)
    assert output.dtype == jnp.float32
    # Only what is added to the input is rounded, to 8 bits a layer: a twentieth of it.
    added = float(jnp.max(jnp.abs(full - x)))
    np.testing.assert_allclose(output, full, rtol=0, atol=0.05 * added)
    assert np.any(output != full)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(GLOBAL)))
def test_a_tile_computes_what_the_whole_image_does(name):
    model = create_small(name)
    margin = -(-model.radius // model.stride) * model.stride
    side = 2 * margin + 2 * model.stride + 3
    x = random_image(1, side + 8, side + 5, 1)
    variables = random_variables(model, x)
    apply = jax.jit(model.apply)
    whole = apply(variables, x)
    assert np.std(whole - x) > 0.01
    top, left = model.stride, 0
    below, right = top + side - 3, left + side
    tile = apply(variables, x[:, top:below, left:right])
    # The tile's border is the image's on the left alone.
    inner = slice(margin, tile.shape[1] - margin), slice(0, tile.shape[2] - margin)
    expected = whole[:, top:below, left:right][:, inner[0], inner[1]]
    assert min(expected.shape[1:3]) >= 1
    # float32 sums in another order; outputs are of order 1.
    np.testing.assert_allclose(
        tile[:, inner[0], inner[1]], expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(GLOBAL)))
def test_a_result_depends_on_no_pixel_beyond_the_radius_and_on_few_less(name):
    model = create_small(name)
    side = 2 * model.radius + 2 * model.stride
    x = random_image(1, side, side, 1)
    variables = random_variables(model, x)

    @jax.jit
    def sensitivity(pixel):
        result = lambda x: model.apply(variables, x)[0, pixel, pixel, 0]  # noqa: E731
        return jax.grad(result)(x)[0, ..., 0]

    reach = 0
    for pixel in range(model.radius, model.radius + model.stride):
        rows, columns = np.nonzero(sensitivity(pixel))
        reach = max(reach, np.abs(rows - pixel).max(), np.abs(columns - pixel).max())
    # A U-Net's is a bound; ReLU and maxima hide some of what could be seen.
    assert model.radius // 2 < reach <= model.radius
    if model.stride == 1:
        assert reach >= model.radius - 1


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
def test_published_cnn10_has_no_residual():
    x = random_image(1, 16, 16, 1)
    model = create_model("cnn10", residual=False)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    zeroed = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    np.testing.assert_array_equal(model.apply(zeroed, x), 0)
    np.testing.assert_array_equal(create_model("cnn10").apply(zeroed, x), x)


@pytest.mark.slow
def test_cnn10_keeps_air_air_up_to_the_border():
    # Continued by its edge, a constant image stays constant whatever the weights are.
    model = create_model("cnn10")
    x = jnp.full((1, 16, 16, 1), -1.0)
    y, _ = jax.jit(model.init_with_output)(jax.random.key(0), x)
    # float32 rounding of sums that a fast convolution may order differently.
    np.testing.assert_allclose(y, y[0, 8, 8, 0], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_batch_statistics_are_used_in_training_and_kept_for_later():
    x = random_image(4, 9, 8, 1)
    model = create_small("dncnn")
    variables = random_variables(model, x)
    train = jax.jit(
        lambda variables, x: model.apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
    )
    apply = jax.jit(model.apply)
    y, updated = train(variables, x)
    # A tenth of the running statistics is the batch's: with those alone, the network
    # gives outside training what it gave in it.
    batch = jax.tree.map(
        lambda new, old: (new - 0.9 * old) / 0.1,
        updated,
        {"batch_stats": variables["batch_stats"]},
    )
    # Ten times the rounding of the running statistics.
    np.testing.assert_allclose(
        apply({**variables, **batch}, x), y, rtol=1e-4, atol=1e-4
    )
    # In training an image depends on the others of its batch, later it does not.
    alone, _ = train(variables, x[:1])
    assert np.max(np.abs(alone - y[:1])) > 1e-3
    np.testing.assert_allclose(
        apply(variables, x)[:1], apply(variables, x[:1]), rtol=1e-5, atol=1e-5
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
        ("RED-CNN", {}, r"no model is called 'RED-CNN'; accepted: \['cnn10', 'dncnn'"),
        ("cnn10", {"width": 3}, r"cnn10 has no \['width'\]; accepted: \['channels'"),
    ],
)
def test_create_model_names_what_is_accepted(name, attributes, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **attributes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("channels", "shape", "message"),
    [
        (1, (1, 64, 64, 3), r"shape \(n, h, w, 1\), got \(1, 64, 64, 3\)"),
        (3, (1, 64, 64, 1), r"shape \(n, h, w, 3\), got \(1, 64, 64, 1\)"),
        (1, (64, 64, 1), r"shape \(n, h, w, 1\), got \(64, 64, 1\)"),
        (1, (1, 0, 64, 1), r"shape \(n, h, w, 1\), got \(1, 0, 64, 1\)"),
        (2, (1, 64, 64, 2), "their number must be odd, got 2"),
    ],
)
def test_networks_refuse_images_they_cannot_take(name, channels, shape, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, channels=channels).init(jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("dncnn", {"depth": 1}, "depth of at least 2, got 1"),
        (
            "nafnet",
            {"encoder_blocks": (1,)},
            "as many decoder_blocks as encoder_blocks",
        ),
        ("restormer", {"heads": (1, 2)}, "blocks and heads for the same scales"),
    ],
)
def test_networks_refuse_attributes_that_do_not_fit(name, attributes, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **attributes).init(
            jax.random.key(0), jnp.zeros((1, 16, 16, 1))
        )

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ipv2.models import FFM, FLOWS, FM, create_model
from ipv2.models.flow_unet import drop, embed_time
from ipv2.models.mixer import FrequencyBranch, Mixer
from ipv2.training.flow import velocity_loss

TINY = {"width": 16, "multipliers": (1, 2)}
ONE_LEVEL = {"width": 16, "multipliers": (1,)}
# Gradients of FFM's Fourier transforms compile for half a minute.
FFM_LONG = [
    pytest.param(name, marks=pytest.mark.long if name == "ffm" else ())
    for name in sorted(FLOWS)
]


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def variables_of(name, multipliers=TINY["multipliers"]):
    """Of a tiny network of one channel, every leaf moved off its initial value."""
    model = create_model(name, width=TINY["width"], multipliers=multipliers)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), random(1, 8, 8, 1), random(1)
    )
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        fan_in = max(1, int(np.prod(shape.shape[:-1])))
        value = rng.normal(0, fan_in**-0.5, shape.shape)
        return jnp.asarray(value + ("scale" in str(path[-1])), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


@functools.cache
def applied(name, **attributes):
    return jax.jit(create_model(name, **TINY, **attributes).apply)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (FFM(channels=3), 39_512_099),
        (FFM(), 39_509_793),
        (FM(), 38_649_281),
    ],
)
def test_parameter_count_is_the_published_one(model, expected):
    x = jax.ShapeDtypeStruct((1, 16, 16, model.channels), jnp.float32)
    time = jax.ShapeDtypeStruct((1,), jnp.float32)
    leaves = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), x, time))
    assert sum(leaf.size for leaf in leaves) == expected
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FLOWS))
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 21, 30, 1), (1, 512, 511, 3)])
def test_any_image_size_comes_back(name, shape):
    model = create_model(name, channels=shape[-1], **TINY)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    time = jax.ShapeDtypeStruct(shape[:1], jnp.float32)
    y, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x, time)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def test_sizes_are_padded_to_what_the_levels_halve():
    assert (FM().stride, FFM().stride) == (8, 16)
    assert FM().radius is None and FFM().radius is None


@pytest.mark.slow
def test_padding_continues_the_image_by_its_edge():
    x = random(1, 7, 6, 1)
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 2), (0, 0)), mode="edge")
    apply, time = applied("ffm"), jnp.asarray([0.5])
    np.testing.assert_array_equal(
        apply(variables_of("ffm"), x, time),
        apply(variables_of("ffm"), padded, time)[:, :7, :6],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FFM_LONG)
def test_a_fresh_network_moves_little_and_its_gradients_are_finite_and_not_zero(name):
    model = create_model(name, **TINY)
    x, time = random(2, 16, 16, 1), jnp.asarray([0.2, 0.7])
    variables = jax.jit(model.init)(jax.random.key(0), x, time)

    @jax.jit
    def gradient(variables, x):
        def loss(v):
            velocity = model.apply(v, x, time)
            return jnp.mean(jnp.square(velocity - 1)), velocity

        return jax.grad(loss, has_aux=True)(variables)

    gradients, velocity = gradient(variables, x)
    assert 0 < float(jnp.std(velocity)) < 0.1
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path
    # A constant image: its spectra are zero everywhere but at the mean.
    for constant in (0.0, -1.0, 0.3):
        gradients, _ = gradient(variables, jnp.full_like(x, constant))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
            assert np.all(np.isfinite(leaf)), (path, constant)
            # Nothing near the 1 / rounding that the phase's true gradient has.
            assert np.max(np.abs(leaf)) < 1e3, (path, constant)


@pytest.mark.slow
def test_frequency_branch_is_finite_on_constant_maps():
    x = jnp.stack([jnp.full((8, 12, 2), value) for value in (0.0, -1.0, 0.3)])
    branch = FrequencyBranch()
    variables = branch.init(jax.random.key(0), x)
    y, transpose = jax.vjp(branch.apply, variables, x)
    assert np.all(np.isfinite(y))
    for leaf in jax.tree.leaves(transpose(random(*y.shape))):
        assert np.all(np.isfinite(leaf))


@pytest.mark.slow
def test_velocity_depends_on_time_and_embedding_scale():
    x, variables = random(1, 8, 8, 1), variables_of("fm")
    early, late = (applied("fm")(variables, x, jnp.asarray([t])) for t in (0.1, 0.2))
    assert not np.allclose(early, late, rtol=1e-3)
    published = applied("fm", time_scale=1.0)(variables, x, jnp.asarray([0.1]))
    assert not np.allclose(published, early, rtol=1e-3)


@pytest.mark.slow
def test_published_time_scale_leaves_most_of_the_embedding_constant():
    times = jnp.linspace(0, 1, 50)
    spread = {s: jnp.ptp(embed_time(times, 64, s), axis=0) for s in (1.0, 1000.0)}
    assert float(jnp.mean(spread[1.0] < 0.1)) > 0.7
    assert float(jnp.mean(spread[1000.0] < 0.1)) < 0.2


def test_embedding_is_sines_then_cosines():
    # Four numbers: frequencies 1 and 1 / 10,000.
    row = embed_time(jnp.asarray([0.5]), 4, 1000.0)[0]
    expected = [np.sin(500), np.sin(0.05), np.cos(500), np.cos(0.05)]
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-4)  # 500 has 3e-5 of ulp


@pytest.mark.slow
def test_dropout_follows_from_each_examples_own_key():
    rngs = jax.random.split(jax.random.key(0), 3)
    x = jnp.ones((3, 50, 50, 4))
    y = drop(rngs, x, 0.1)
    np.testing.assert_array_equal(drop(rngs[1:], x[1:], 0.1), y[1:])
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.9], rtol=1e-6)
    # 30,000 draws: a standard error of 0.0017.
    assert abs(float(jnp.mean(y == 0)) - 0.1) < 0.01


@pytest.mark.slow
def test_dropout_is_active_only_where_keys_are_given():
    x, time, apply = random(1, 8, 8, 1), jnp.asarray([0.5]), applied("fm")
    variables = variables_of("fm")
    still = apply(variables, x, time)
    one, other = (
        apply(variables, x, time, dropout_rngs=jax.random.split(jax.random.key(k), 1))
        for k in (0, 1)
    )
    assert np.any(one != still) and np.any(one != other)
    none = applied("fm", dropout=0.0)(
        variables, x, time, dropout_rngs=jax.random.split(jax.random.key(0), 1)
    )
    # The same program but for the drawing: only fusions may differ.
    np.testing.assert_allclose(none, still, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
def test_remat_changes_neither_names_nor_values_nor_gradients():
    x, time = random(1, 8, 8, 1), jnp.asarray([0.5])
    variables, results = variables_of("ffm", ONE_LEVEL["multipliers"]), []
    for remat in (False, True):
        model = create_model("ffm", remat=remat, **ONE_LEVEL)
        results.append(
            jax.jit(
                jax.value_and_grad(
                    lambda v, m=model: jnp.mean(jnp.square(m.apply(v, x, time)))
                )
            )(variables)
        )
    for mine, expected in zip(*map(jax.tree.leaves, results), strict=True):
        # Float32 rounding through 3 blocks, doubled in gradients of up to 1e1.
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_keeps_the_frequency_branch_in_float32():
    mixer = Mixer(16, dtype=jnp.bfloat16)
    x = random(1, 8, 8, 16).astype(jnp.bfloat16)
    variables = jax.eval_shape(mixer.init, jax.random.key(0), x)
    jaxpr = jax.make_jaxpr(mixer.apply)(variables, x)
    seen = {}
    for equation in _equations(jaxpr.jaxpr):
        for var in equation.invars:
            seen.setdefault(equation.primitive.name, set()).add(str(var.aval.dtype))
    assert seen["fft"] == {"float32", "complex64"}
    for name in ("atan2", "sqrt", "cos", "sin"):
        assert seen[name] == {"float32"}, name
    assert "bfloat16" in seen["dot_general"]  # the rest is computed in halves
    assert jaxpr.out_avals[0].dtype == jnp.bfloat16


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr"),
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@pytest.mark.slow
@pytest.mark.parametrize("name", FFM_LONG)
def test_a_flow_learns_to_halve_its_input(name):
    model, x = create_model(name, **ONE_LEVEL), random(4, 8, 8, 1)
    x1 = 0.5 * x
    times = jnp.asarray([0.1, 0.3, 0.6, 0.9])
    variables = jax.jit(model.init)(jax.random.key(0), x, times)
    optimizer = optax.adam(2e-3)

    @jax.jit
    def step(variables, state):
        def loss(v):
            return velocity_loss(lambda y, t: model.apply(v, y, t), x, x1, times)

        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, value

    state, losses = optimizer.init(variables), []
    for _ in range(40):
        variables, state, value = step(variables, state)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FLOWS))
def test_network_and_gradient_are_those_of_plain_pytorch(name):
    torch = pytest.importorskip("torch")
    from tests.oracles import torch_ffm

    x, time, variables = (
        random(2, 8, 12, 1),
        jnp.asarray([0.3, 0.9]),
        variables_of(name),
    )
    network = torch_ffm.create_twin(create_model(name, **TINY), variables)
    theirs_in = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())
    theirs_in.requires_grad_()
    theirs = network(theirs_in, torch.tensor(np.asarray(time)))
    theirs.square().sum().backward()

    model = create_model(name, **TINY)
    (_, ours), gradient = jax.jit(
        jax.value_and_grad(
            lambda x: (lambda y: (jnp.sum(jnp.square(y)), y))(
                model.apply(variables, x, time)
            ),
            has_aux=True,
        )
    )(x)

    def as_ours(a):
        return a.detach().numpy().transpose(0, 2, 3, 1)

    # float32 through 7 blocks. Gradients of phases divide by magnitudes, so that
    # rounding in a small one counts a thousandfold.
    scale = float(jnp.max(jnp.abs(ours)))
    np.testing.assert_allclose(ours, as_ours(theirs), rtol=0, atol=1e-4 * scale)
    scale = float(jnp.max(jnp.abs(gradient)))
    np.testing.assert_allclose(
        gradient, as_ours(theirs_in.grad), rtol=0, atol=1e-2 * scale
    )


@pytest.mark.parametrize(
    ("attributes", "x", "time", "message"),
    [
        ({}, (1, 8, 8, 3), (1,), r"FFM takes images of shape \(n, h, w, 1\), got"),
        ({}, (2, 8, 8, 1), (1,), r"one time per image, of shape \(2,\), got \(1,\)"),
        ({"width": 24}, (1, 8, 8, 1), (1,), "width must be a multiple of 16.*got 24"),
    ],
)
def test_what_does_not_fit_is_refused(attributes, x, time, message):
    model = create_model("ffm", **attributes)
    with pytest.raises(ValueError, match=message):
        # Past the annotations, which are only executed in tests.
        model._check(jnp.zeros(x), jnp.zeros(time))

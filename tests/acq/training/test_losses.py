import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.attention import attention_map
from acq.training import losses


def random(*shape, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape, scale=scale), jnp.float32)


def softmax(x):
    x = np.exp(np.asarray(x, np.float64))
    return x / x.sum(-1, keepdims=True)


def attention(*shape, seed=0):
    return attention_map(random(*shape, 3, seed=seed))


def statistics(shapes=(4, 6), seed=0):
    return {
        f"stage{i}": {"bn": {"mean": random(c, seed=seed + i), "var": jnp.full(c, 2.0)}}
        for i, c in enumerate(shapes)
    }


def test_class_loss_is_the_cross_entropy():
    # Logits of log 1, log 2, log 5: probabilities of an eighth, a quarter, 5/8.
    logits = jnp.log(jnp.asarray([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))
    label = jnp.asarray([2, 0])
    expected = -(np.log(5 / 8) + np.log(1 / 8)) / 2
    np.testing.assert_allclose(losses.class_loss(logits, label), expected, rtol=1e-6)
    # Large logits do not overflow.
    assert losses.class_loss(1e30 * logits, label) > 1e29


def test_statistics_loss_of_a_literal():
    running = {"bn": {"mean": jnp.asarray([1.0, 0.0]), "var": jnp.asarray([4.0, 1.0])}}
    found = {"bn": {"mean": jnp.asarray([3.0, 1.0]), "var": jnp.asarray([2.0, 1.0])}}
    # (4 + 1) / 2 + (4 + 0) / 2, and (4 / 4 + 1) / 2 + (0.25 + 0) / 2.
    for form, expected in (("squared", 4.5), ("relative", 1.125)):
        assert losses.statistics_loss(found, running, form) == expected


@pytest.mark.parametrize("form", ["squared", "relative"])
def test_statistics_loss_is_a_mean_over_layers_and_zero_where_they_agree(form):
    running, found = statistics(), statistics(seed=7)
    each = [
        losses.statistics_loss({name: found[name]}, {name: running[name]}, form)
        for name in running
    ]
    whole = losses.statistics_loss(found, running, form)
    np.testing.assert_allclose(whole, np.mean(each), rtol=1e-6)
    assert losses.statistics_loss(running, running, form) == 0


def test_relative_statistics_do_not_depend_on_a_channel_s_scale():
    running, found = statistics((4,)), statistics((4,), seed=7)

    def scaled(tree, by):
        bn = tree["stage0"]["bn"]
        return {"bn": {"mean": by * bn["mean"], "var": by**2 * bn["var"]}}

    by = jnp.asarray([0.1, 1.0, 5.0, 100.0])
    one, other = (
        losses.statistics_loss(scaled(found, s), scaled(running, s), "relative")
        for s in (jnp.ones(4), by)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)
    # A channel of the teacher that never changed: finite.
    still = {"bn": {"mean": jnp.zeros(4), "var": jnp.zeros(4)}}
    assert np.isfinite(losses.statistics_loss(scaled(found, by), still, "relative"))


def test_statistics_of_other_layers_or_channels_are_refused():
    running = statistics()
    with pytest.raises(ValueError, match=r"of the layers \['stage0/bn'\], the teacher"):
        losses.statistics_loss({"stage0": running["stage0"]}, running, "squared")
    with pytest.raises(ValueError, match=r"of the layers \[\], the teacher's of \[\]"):
        losses.statistics_loss({}, {}, "squared")
    with pytest.raises(ValueError, match=r"stage0/bn: statistics of \(1,\) and"):
        losses.statistics_loss(statistics((1, 6)), running, "squared")


def test_layers_are_found_at_any_depth():
    one, two = ({"mean": random(2), "var": random(2)} for _ in range(2))
    found = losses.layer_statistics({"bn": one, "a": {"b": {"bn": two}}})
    assert set(found) == {"bn", "a/b/bn"}
    assert found["a/b/bn"][0] is two["mean"] and found["bn"][1] is one["var"]


def test_center_loss_is_the_mean_squared_distance():
    achieved = jnp.asarray([[0.0, 0.0], [1.0, -1.0]])
    requested = jnp.asarray([[0.3, 0.4], [-1.0, 1.0]])
    # 0.25, and the square's diagonal: 4 + 4.
    np.testing.assert_allclose(losses.center_loss(achieved, requested), 4.125)
    assert losses.center_loss(achieved, achieved) == 0


def test_pair_loss_of_a_literal():
    latent = jnp.asarray([[0.0, 0.0], [3.0, 1.0], [5.0, 5.0], [5.0, 7.0]])
    images = jnp.asarray([1.0, 1.0, 0.0, 3.0]).reshape(4, 1, 1, 1)
    # Latents are 2 and 1 apart, images 0 and 3: a mean of 2 / 2 and 1 / 4.
    np.testing.assert_allclose(losses.pair_loss(latent, images), 0.625)


@pytest.mark.slow
def test_pair_loss_is_bounded_and_falls_with_the_samples_distance():
    latent, sample = random(8, 5), random(8, 4, 4, 3, seed=1)
    found = [
        float(losses.pair_loss(latent, by * sample)) for by in (0, 1e-3, 1, 1e3, 1e9)
    ]
    assert found == sorted(found, reverse=True)
    np.testing.assert_allclose(found[0], 1)
    assert 0 < found[-1] < 1e-8


def test_samples_without_a_partner_are_refused():
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"even number of samples, got {count}"):
            losses.pair_loss(random(count, 5), random(count, 2, 2, 3))


@pytest.mark.slow
def test_consistency_loss_is_one_less_the_mean_cosine():
    a, b = attention(3, 2, 5), attention(3, 2, 5, seed=1)
    x, y = (np.asarray(m, np.float64).reshape(3, -1) for m in (a, b))
    cosine = np.sum(x * y, 1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(losses.attention_cosine(a, b), cosine, rtol=1e-5)
    np.testing.assert_allclose(
        losses.consistency_loss(a, b), 1 - cosine.mean(), rtol=1e-5
    )
    np.testing.assert_allclose(losses.consistency_loss(a, a), 0, atol=1e-6)
    # Maps that have no position in common: the most there is.
    apart = jnp.eye(2)[:, None]
    np.testing.assert_allclose(losses.consistency_loss(apart, apart[::-1]), 1)


@pytest.mark.slow
def test_entropy_is_from_nothing_to_log_k():
    # Probabilities of 1/8, 1/4, 5/8; of 1/3 each; of 1, however large the logits.
    logits = jnp.asarray([[0, np.log(2), np.log(5)], [7, 7, 7], [3e38, 0, -3e38]])
    literal = np.log(8) / 8 + np.log(4) / 4 - np.log(5 / 8) * 5 / 8
    found = losses.entropy(logits)
    np.testing.assert_allclose(found, [literal, np.log(3), 0], rtol=1e-6)


def test_distillation_loss_is_the_divergence_of_the_softened_softmax():
    student, teacher = random(4, 5), random(4, 5, seed=1, scale=3)
    p, q = softmax(teacher / 2.5), softmax(student / 2.5)
    expected = 2.5**2 * np.mean(np.sum(p * np.log(p / q), -1))
    found = losses.distillation_loss(student, teacher, 2.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        losses.distillation_loss(teacher, teacher, 2.5), 0, atol=1e-6
    )
    # A constant added to a sample's logits says nothing.
    shifted = losses.distillation_loss(student + 100, teacher, 2.5)
    np.testing.assert_allclose(shifted, found, rtol=1e-4)


def test_distillation_at_high_temperature_is_the_logits_squared_distance():
    """T^2 keeps the gradient's size: half the variance of the logits' difference."""
    student, teacher = random(4, 5), random(4, 5, seed=1)
    expected = np.mean(np.var(np.asarray(student - teacher), axis=1)) / 2
    for temperature in (20, 40):
        found = losses.distillation_loss(student, teacher, temperature)
        # KL is a difference of numbers near 1/400 of the logits.
        np.testing.assert_allclose(found, expected, rtol=0.1)


def test_hint_loss_is_relative_to_each_layer_s_power():
    teacher = {"a": jnp.asarray([[3.0, 1.0]]), "b": {"c": jnp.asarray([[100.0]])}}
    student = {"a": jnp.asarray([[1.0, 1.0]]), "b": {"c": jnp.asarray([[90.0]])}}
    # 2 of 5, and 100 of 10,000.
    np.testing.assert_allclose(
        losses.hint_loss(student, teacher), (0.4 + 0.01) / 2, rtol=1e-6
    )
    assert losses.hint_loss(teacher, teacher) == 0
    by_teacher = jax.grad(losses.hint_loss, argnums=1)(student, teacher)
    assert all(not leaf.any() for leaf in jax.tree.leaves(by_teacher))


@pytest.mark.slow
def test_hint_loss_over_devices_is_that_of_the_joined_batch():
    student, teacher = random(8, 5), random(8, 5, seed=1) * jnp.arange(8.0)[:, None]

    def over_devices(s, t):
        loss = functools.partial(losses.hint_loss, axis_name="batch")
        return jax.lax.pmean(loss({"a": s}, {"a": t}), "batch")

    mapped = jax.vmap(over_devices, axis_name="batch")
    found = mapped(student.reshape(4, 2, 5), teacher.reshape(4, 2, 5))
    expected = losses.hint_loss({"a": student}, {"a": teacher})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_hints_of_other_layers_or_shapes_are_refused():
    teacher = {"a": random(2, 3), "b": random(2, 4)}
    with pytest.raises(ValueError, match="b"):
        losses.hint_loss({"a": teacher["a"]}, teacher)
    with pytest.raises(ValueError, match=r"of \(2, 1\) and of \(2, 4\)"):
        losses.hint_loss({"a": teacher["a"], "b": random(2, 1)}, teacher)
    with pytest.raises(ValueError, match="has no activations"):
        losses.hint_loss({}, {})


def _attention_terms(features):
    maps = attention_map(features)
    return losses.consistency_loss(maps, maps[::-1])


@pytest.mark.parametrize(
    ("loss", "at"),
    [
        (lambda x: losses.pair_loss(random(4, 5), x), jnp.ones((4, 2, 2, 3))),
        (_attention_terms, jnp.zeros((4, 2, 2, 3))),
        (_attention_terms, jnp.ones((4, 2, 2, 3))),
        (lambda x: losses.distillation_loss(x, x[::-1], 20), jnp.zeros((4, 5))),
        (lambda x: losses.hint_loss({"a": x}, {"a": jnp.zeros((4, 5))}), random(4, 5)),
        (lambda x: losses.center_loss(x, x[::-1]), jnp.zeros((4, 2))),
    ],
    ids=[
        "equal_samples",
        "no_features",
        "equal_attention",
        "equal_logits",
        "teacher_at_zero",
        "reached_centres",
    ],
)
def test_gradients_are_finite_where_a_distance_or_norm_is_zero(loss, at):
    value, gradient = jax.jit(jax.value_and_grad(loss))(at)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()

"""What steps are made of, for every recipe."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.grid import Grid
from acq.quantization.parts import (
    create_generator,
    create_sampling,
    generator_parts,
    student_parts,
)
from acq.quantization.student_layers import quant_layers, range_layers
from acq.tasks.settings import quantization_settings as resolved
from acq.training.train_step import generator_terms
from common.devices import AXIS
from common.errors import UserError
from configs import (
    acq_efficientnet_lite0,
    acq_mbv2,
    acq_r18,
    acq_r20_cifar10,
    acq_r50,
)
from tests.acq.recipe_config import RECIPES, changed, teacher


@pytest.mark.parametrize(
    ("variant", "kept"),
    [
        ("default", set()),
        ("gdfq", set()),
        ("published,gdfq", set()),
        ("center", {"center_weight"}),
        ("pair", {"pair_weight"}),
        ("consistency", {"consistency_weight"}),
        ("acq", {"center_weight", "pair_weight", "consistency_weight"}),
        ("published", {"center_weight", "pair_weight", "consistency_weight"}),
    ],
)
def test_imagenet_recipes_have_the_terms_of_acq_that_are_named(variant, kept):
    names = ("center_weight", "pair_weight", "consistency_weight")
    expected = acq_r20_cifar10.get_config().generator
    for recipe in (acq_r18, acq_r50, acq_mbv2, acq_efficientnet_lite0):
        generator = recipe.get_config(variant).generator
        assert {name for name in names if generator[name]} == kept
        assert all(generator[name] == expected[name] for name in kept)
        assert (generator.center == "none") == ("center_weight" not in kept)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_variant_makes_steps(recipe):
    for variant in ("default", *recipe.VARIANTS):
        config = recipe.get_config(variant)
        for alone in (True, False):
            hash(generator_parts(resolved(config), teacher(), alone=alone))
        hash(student_parts(resolved(config), teacher()))


def test_the_generator_is_the_config_s_and_the_teacher_s():
    values = {"generator.width": 6, "generator.label": "product"}
    found = create_generator(
        resolved(changed(**values)), teacher(classes=7, image_size=12)
    )
    assert (found.width, found.label, found.center) == (6, "product", "window")
    assert (found.classes, found.channels, found.image_size) == (7, 3, 12)
    assert found.axis_name == AXIS


def test_images_that_cannot_be_quartered_are_refused():
    with pytest.raises(UserError, match=r"config.teacher.image_size: got 30, accepted"):
        create_generator(resolved(changed()), teacher(image_size=30))


def test_shifts_reach_the_loss_and_leave_something_to_see():
    config = changed(generator__shift=3)
    parts = generator_parts(resolved(config), teacher(), alone=True)
    assert parts.sampling.shift == 3
    assert parts.black == teacher().record.black
    assert (
        create_sampling(resolved(changed("published")), teacher(), alone=True).shift
        == 0
    )
    with pytest.raises(UserError, match=r"generator.shift: got 8, accepted"):
        create_generator(resolved(changed(generator__shift=8)), teacher(image_size=8))


def test_conditions_are_paired_only_where_a_generator_learns_from_pairs():
    def paired(variant="", *, alone, **values):
        return create_sampling(
            resolved(changed(variant, **values)), teacher(), alone=alone
        ).paired

    assert paired(alone=True) and not paired(alone=False)
    assert paired(alone=False, **{"generator.learns": True})
    for variant in ("gdfq", "center", "consistency"):
        assert not paired(variant, alone=True)
    config = changed(seed=3, **{"generator.reach": 0.7})
    found = create_sampling(resolved(config), teacher(classes=7), alone=True)
    assert (found.classes, found.seed, found.reach) == (7, 3, 0.7)


def test_weights_of_a_variant_reach_the_generator_s_loss():
    def weights(variant):
        loss = generator_parts(resolved(changed(variant)), teacher(), alone=True).loss
        names = ("center", "pair", "consistency")
        return tuple(getattr(loss, f"{name}_weight") > 0 for name in names)

    assert weights("acq") == (True, True, True)
    assert weights("center") == (True, False, False)
    assert weights("pair") == (False, True, False)
    assert weights("consistency") == (False, False, True)
    assert weights("gdfq") == weights("published,gdfq") == (False, False, False)


def test_pixels_are_the_teacher_s_unless_tanh_is_asked_for():
    def pixels(variant="acq", **changes):
        return create_generator(resolved(changed(variant, **changes)), teacher()).pixels

    assert pixels(generator__output="pixels") == teacher().record.normalisation
    assert pixels(generator__output="tanh") is None
    assert pixels("published") is None


def test_a_latent_too_short_for_colours_is_refused():
    config = changed(generator__output="pixels", generator__latent=3)
    with pytest.raises(
        UserError, match=r"generator.latent: got 3, accepted .* above 3"
    ):
        create_generator(resolved(config), teacher())
    create_generator(resolved(changed("published", generator__latent=3)), teacher())


def test_the_centre_s_ramp_is_the_warm_up_s_alone():
    config = changed(**{"generator.center_ramp": "9 steps"})
    ramps = [
        generator_parts(resolved(config), teacher(), alone=alone).loss.center_ramp
        for alone in (True, False)
    ]
    assert ramps == [9, 0]


def test_a_warm_up_of_no_step_makes_parts_too():
    config = changed(**{"generator.warmup": ""})
    generator_parts(resolved(config), teacher(), alone=True)


@pytest.mark.slow
def test_terms_of_every_variant_are_those_of_its_weights():
    """As the steps see them; shapes only."""
    expected = {
        "acq": {"class", "statistics", "center", "pair", "consistency"},
        "published,gdfq": {"class", "statistics"},
    }
    for variant, terms in expected.items():
        parts = generator_parts(
            resolved(changed(f"smoke,{variant}")), teacher(), alone=True
        )
        parts = parts._replace(
            generator=parts.generator.clone(axis_name=None, width=4),
            teacher=teacher().network,
        )
        conditions = jax.eval_shape(parts.sampling.draw, jnp.arange(4, dtype="uint32"))
        images = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)
        key = jax.random.key(0)
        params = jax.eval_shape(parts.generator.init, key, conditions)["params"]
        variables = jax.eval_shape(parts.teacher.init, key, images)
        _, (_, metrics) = jax.eval_shape(
            lambda *given, parts=parts: generator_terms(parts, *given, jnp.int32(0)),
            params,
            variables,
            conditions,
        )
        assert set(metrics) == {"recognised"} | {f"generator_{t}" for t in terms}


def test_layers_of_the_student():
    config = changed("w3a3,integer_ready", quantizer__gradient="clipped")
    found = quant_layers(resolved(config).quantizer, teacher())
    assert found.kernels.grid == Grid(3) == found.activations.grid
    assert found.kernels.gradient == "identity"
    assert found.others is not None and found.others.grid == Grid(8)
    assert found.activations.gradient == found.others.gradient == "clipped"
    # Evaluated and exported without devices' axis, trained with it.
    assert found.axis_name is None
    student = student_parts(resolved(config), teacher()).student
    assert student.layers == dataclasses.replace(found, axis_name=AXIS)
    ranges = range_layers(resolved(config).quantizer, teacher())
    assert (ranges.activations, ranges.others) == (Grid(3), Grid(8))
    assert ranges.method == "mse"
    symmetric = changed(quantizer__symmetric_weights=True)
    assert quant_layers(resolved(symmetric).quantizer, teacher()).kernels.grid == Grid(
        4, symmetric=True
    )
    assert quant_layers(resolved(symmetric).quantizer, teacher()).others is None


def test_ranges_are_observed_only_where_they_come_from_samples():
    assert student_parts(resolved(changed()), teacher()).ranges.observe_steps == 0
    config = changed(quantizer__range_source="observed", quantizer__observe="9 steps")
    assert student_parts(resolved(config), teacher()).ranges.observe_steps == 9


def test_the_published_divergence_is_a_mean_over_classes_too():
    for classes in (10, 1000):
        loss = student_parts(resolved(changed("published")), teacher(classes)).loss
        # Times T^2 = 400 in the loss itself.
        assert (loss.kl_weight, loss.temperature) == (1 / classes, 20)
    assert student_parts(resolved(changed()), teacher()).loss.kl_weight == 1


def _moves(optimizer, steps, params):
    """How far each step moves parameters, for a gradient of 1 everywhere."""
    state, moves = optimizer.init(params), []
    for _ in range(steps):
        gradient = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        moves.append(jax.tree.map(float, updates))
    return moves


def _student_optimizer(warmup="", **values):
    config = changed(**{f"student__{key}": value for key, value in values.items()})
    config.generator.warmup, config.train.duration = warmup, "8 steps"
    config.train.decay_at = ("2 steps", "4 steps", "6 steps")
    return student_parts(resolved(config), teacher()).optimizer


def _ones():
    return {"params": jnp.float32(1), "ranges": jnp.float32(1)}


@pytest.mark.parametrize(
    ("warmup", "steps"),
    [
        ("", (2, 2, 2, 2)),
        ("1 steps", (1, 2, 2, 3)),
        ("2 steps", (0, 2, 2, 4)),
        ("4 steps", (0, 0, 2, 6)),
        ("9 steps", (0, 0, 0, 8)),
    ],
)
def test_rates_fall_to_a_tenth_at_steps_of_the_run(warmup, steps):
    """Adam moves by the rate, for a gradient that stays."""
    optimizer = _student_optimizer(warmup, schedule="step", learning_rate=0.1)
    moved = [move["params"] for move in _moves(optimizer, 8, _ones())]
    expected = -0.1 * np.repeat([1, 0.1, 0.01, 0.001], steps)
    np.testing.assert_allclose(moved, expected, rtol=1e-3)


def test_a_generator_that_is_given_had_its_warm_up_elsewhere():
    config = changed("published", generator__path="configs")
    assert resolved(config).waiting_steps == 0
    assert resolved(changed("published")).waiting_steps == 800


def _rates(optimizer, steps, momentum):
    """The rate of each step, of what a gradient that stays 1 moves."""
    params = {"params": jnp.float32(0), "ranges": jnp.float32(0)}
    ones = jax.tree.map(jnp.ones_like, params)

    @jax.jit
    def moves(state):
        def step(state, _):
            updates, state = optimizer.update(ones, state, params)
            return state, updates["ranges"]

        return jax.lax.scan(step, state, length=steps)[1]

    moved = -np.asarray(moves(optimizer.init(params)), np.float64)
    if not momentum:
        return moved
    gathered = (1 - momentum ** np.arange(1, steps + 1)) / (1 - momentum)
    return moved / (1 + momentum * gathered)


@pytest.mark.parametrize(
    ("recipe", "variant", "warmup", "batch", "rate"),
    [
        (acq_r20_cifar10, "published,gdfq,long", 4, 200, 1e-4),
        (acq_r20_cifar10, "long,published", 4, 200, 1e-4),
        (acq_r18, "published", 50, 16, 1e-6),
        (acq_r18, "published,gdfq", 50, 16, 1e-6),
        (acq_mbv2, "published,gdfq,w3a3", 50, 16, 1e-6),
    ],
)
def test_the_published_run_is_400_epochs(recipe, variant, warmup, batch, rate):
    """In epochs of one step; rates fall at epochs 100, 200 and 300 of the whole."""
    config = recipe.get_config(variant)
    assert config.train.epoch_steps == 200 and config.train.batch_size == batch
    config.train.epoch_steps = 1
    duration = resolved(config).train.steps
    assert resolved(config).waiting_steps == warmup
    assert (resolved(config).alone_steps, warmup + duration) == (0, 400)
    student = student_parts(resolved(config), teacher())
    assert student.waits == warmup
    # Frozen before the student's first update.
    assert student.ranges.observe_steps == 4 <= warmup
    found = _rates(student.optimizer, duration, momentum=0.9)
    expected = np.repeat([1, 0.1, 0.01, 0.001], 100)
    np.testing.assert_allclose(found, rate * expected[warmup:], rtol=1e-3)
    generator = generator_parts(resolved(config), teacher(), alone=False)
    # Adam's steps are the rate's within the few digits that float32 sums leave.
    found = _rates(generator.optimizer, 400, momentum=0)
    np.testing.assert_allclose(found, 1e-3 * expected, rtol=1e-2)


def test_the_published_generator_is_cifar_s_or_imagenet_s():
    for recipe, label in ((acq_r20_cifar10, "product"), (acq_r18, "norm")):
        found = create_generator(resolved(recipe.get_config("published")), teacher())
        assert (found.label, found.spread) == (label, 0)
    assert create_generator(resolved(changed()), teacher()).spread == 0.1


def test_imagenet_networks_take_cifar_s_recipe_unless_the_published_one_is_asked_for():
    """The longer one, with batches of 16; ACQ's terms if they are named."""
    cifar = acq_r20_cifar10.get_config()
    recipes = (acq_r18, acq_r50, acq_mbv2, acq_efficientnet_lite0)
    for recipe in recipes:
        config = recipe.get_config("acq")
        assert config.quantizer == cifar.quantizer and config.student == cifar.student
        ours, theirs = dict(config.generator), dict(cifar.generator)
        assert {k for k in ours if ours[k] != theirs[k]} == {"shift", "warmup"}
        run, as_there = resolved(config).train, resolved(cifar).train
        assert run.batch_size == 16 and not run.one_loop
        assert run.generator_steps * 16 == as_there.generator_steps * 64
        assert run.steps * 16 == 2400 * 64


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_published_ranges_are_frozen_before_the_student_s_first_update(recipe):
    parts = student_parts(resolved(recipe.get_config("published,gdfq")), teacher())
    assert 0 < parts.ranges.observe_steps <= parts.waits


def test_other_recipes_have_a_warm_up_apart():
    for variant in ("default", "gdfq", "long"):
        config = changed(variant)
        assert resolved(config).alone_steps == 800
        assert resolved(config).waiting_steps == 0
        assert student_parts(resolved(config), teacher()).waits == 0
    assert resolved(changed("long")).train.steps == 396 * 200


def test_a_run_of_one_step_takes_it_at_the_full_rate():
    config = changed(student__schedule="step", student__learning_rate=0.1)
    config.train.duration = "1 steps"
    optimizer = student_parts(resolved(config), teacher()).optimizer
    np.testing.assert_allclose(_moves(optimizer, 1, _ones())[0]["params"], -0.1, 1e-3)


def test_sgd_is_pytorch_s_with_nesterov_and_decay_of_the_weights_alone():
    optimizer = _student_optimizer(
        optimizer="sgd", schedule="constant", learning_rate=0.1, weight_decay=0.5
    )
    moves = _moves(optimizer, 3, _ones())
    for name, decay in (("params", 0.5), ("ranges", 0.0)):
        weight, momentum = 1.0, 0.0
        for move in moves:
            gradient = 1 + decay * weight
            momentum = 0.9 * momentum + gradient
            step = -0.1 * (gradient + 0.9 * momentum)
            np.testing.assert_allclose(move[name], step, rtol=1e-6)
            weight += step


def test_the_same_config_gives_the_same_optimizer():
    """So that the step of a resumed or repeated run is not compiled again."""
    one, other = (student_parts(resolved(changed()), teacher()) for _ in range(2))
    assert one.optimizer is other.optimizer
    assert one.loss == other.loss

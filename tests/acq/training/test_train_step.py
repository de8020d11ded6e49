"""Steps of generator and student, on one device and on several.

Every run here also finds that replicas are identical and that steps compile once.
"""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acq.kernels.attention import attention_center
from acq.kernels.grid import Grid
from acq.layers.float import FloatLayers, Layers
from acq.layers.quantized import Quantizer, QuantLayers
from acq.samples.generator import Generator
from acq.samples.observation import observe
from acq.samples.shifts import shift_images
from acq.training import losses
from acq.training.ranges import RangeRule
from acq.training.step_parts import (
    GeneratorLoss,
    GeneratorParts,
    GeneratorState,
    QuantizeState,
    Sampling,
    StudentLoss,
    StudentParts,
    create_learner,
)
from acq.training.train_step import (
    generator_terms,
    make_generator_step,
    make_quantize_step,
)
from common.devices import AXIS, pmap_frozen_step, refuse_divergence, replicate
from tests.acq.models.small import random_variables

SIZE, CLASSES, COUNT = 16, 3, 8
BLACK = (-2.0, -1.0, -3.0)
ALL_TERMS = GeneratorLoss(
    class_weight=1.0,
    statistics_weight=0.5,
    statistics_form="relative",
    statistics_mode="train",
    center_weight=2.0,
    center_ramp=4,
    pair_weight=0.3,
    consistency_weight=0.7,
)
# Needs one pass of the teacher, and half the time to compile.
ONE_PASS = GeneratorLoss(statistics_form="relative", center_weight=2.0, power=1)
TERMS = ("class", "statistics", "center", "pair", "consistency")


class TinyNet(nn.Module):
    """A network of two convolutions, which compiles fast."""

    layers: Layers
    classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        for i, features in enumerate((4, 8)):
            x = make.conv(features, 3, strides=2, padding=1, name=f"conv{i}")(x)
            x = make.batch_norm(name=f"bn{i}")(x, train)
            x = make.activation("relu", name=f"act{i}")(x)
        return make.dense(self.classes, name="head")(jnp.mean(x, (1, 2))), x


def teacher(axis_name=AXIS):
    return TinyNet(FloatLayers(axis_name=axis_name))


def generator_parts(loss=ALL_TERMS, axis_name=AXIS, shift=0):
    return GeneratorParts(
        generator=Generator(
            image_size=SIZE, channels=3, classes=CLASSES, width=4, axis_name=axis_name
        ),
        teacher=teacher(axis_name),
        loss=loss,
        sampling=Sampling(
            latent=6, classes=CLASSES, reach=0.6, paired=True, shift=shift, seed=0
        ),
        black=BLACK,
        optimizer=ADAM,
    )


# Adam divides by at least eps: see the test of several devices.
ADAM = optax.adam(1e-2, eps=1e-3)
SLOW_ADAM = optax.adam(3e-3)
SGD = optax.chain(
    optax.add_decayed_weights(1e-2, mask={"params": True, "ranges": False}),
    optax.sgd(1e-2, momentum=0.9, nesterov=True),
)


def student_parts(
    gradient="learned", *, rule=None, optimizer=SLOW_ADAM, loss=None, waits=0
) -> StudentParts:
    layers = QuantLayers(
        Quantizer(Grid(4)), Quantizer(Grid(4), gradient), axis_name=AXIS
    )
    return StudentParts(
        student=TinyNet(layers),
        loss=loss or StudentLoss(class_weight=0.01, kl_weight=1.0, hint_weight=1.0),
        optimizer=optimizer,
        ranges=rule or RangeRule(),
        waits=waits,
    )


@functools.cache
def teacher_variables():
    x = jnp.asarray(np.zeros((1, SIZE, SIZE, 3), "f"))
    return random_variables(teacher(None), x)


@functools.cache
def generator_params():
    parts = generator_parts(axis_name=None)
    conditions = jax.eval_shape(parts.sampling.draw, jnp.arange(2, dtype=jnp.uint32))
    shapes = jax.eval_shape(parts.generator.init, jax.random.key(1), conditions)
    rng = np.random.default_rng(5)

    def draw(path, leaf):
        around = 1 if path[-1].key.endswith("_scale") else 0
        return jnp.asarray(rng.normal(around, 0.3, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes["params"])


def student_start():
    return teacher_variables()["params"]


def initial_ranges(low, high):
    return {f"act{i}": {"low": low, "high": high} for i in range(2)}


def generator_state(parts):
    learner = create_learner(generator_params(), parts.optimizer)
    return GeneratorState(step=jnp.int32(0), generator=learner)


def quantize_state(parts, low=0.0, high=1.0):
    ranges = initial_ranges(jnp.float32(low), jnp.float32(high))
    trained = {"params": student_start(), "ranges": ranges}
    return QuantizeState(
        step=jnp.int32(0),
        generator=create_learner(generator_params(), ADAM),
        student=create_learner(trained, parts.optimizer),
    )


def shards(devices):
    """The same samples in every step, so that losses compare."""
    draw = np.arange(COUNT, dtype=np.uint32)
    return {"draw": jnp.asarray(draw.reshape(devices, -1))}


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append("backend_compile" in event)
)


def run(step, state, steps, devices=4):
    """Returns [(state, metrics)] after each step; the first step compiles."""
    if devices == jax.device_count():
        over, frozen = pmap_frozen_step(step), replicate(teacher_variables())
        state = replicate(state)
    else:
        over = jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, None, 0),
            out_axes=(None, None),
            devices=jax.devices()[:devices],
        )
        frozen = teacher_variables()
    done, compiled = [], 0
    for _ in range(steps):
        state, metrics = over(frozen, state, shards(devices))
        refuse_divergence((state, metrics))
        done.append(jax.tree.map(np.array, (state, metrics)))
        if devices == jax.device_count():
            assert len(done) == 1 or sum(COMPILED) == compiled
            compiled = sum(COMPILED)
    return done


@functools.cache
def generator_run():
    parts = generator_parts(ONE_PASS)
    return run(make_generator_step(parts), generator_state(parts), 8)


@functools.cache
def student_run():
    """The student alone, its ranges learned."""
    parts = student_parts()
    step = make_quantize_step(generator_parts(), parts, generator_learns=False)
    return run(step, quantize_state(parts), 25)


@functools.cache
def published_run(devices):
    """As GDFQ: both learn, ranges follow the samples for two steps from none at all."""
    parts = student_parts(
        "identity", rule=RangeRule(observe_steps=2, decay=0.75), optimizer=SGD
    )
    step = make_quantize_step(generator_parts(), parts, generator_learns=True)
    state = quantize_state(parts, float("nan"), float("nan"))
    return run(step, state, 4, devices)


def series(run, name):
    return [float(metrics[name]) for _, metrics in run]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, atol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


def moved(a, b):
    """Returns the largest change of each leaf, by path."""
    apart = jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)
    leaves = jax.tree_util.tree_leaves_with_path(apart)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def shapes_of(step, state):
    """Returns shapes of (state, metrics) after a step; compiles nothing."""
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
    return jax.eval_shape(mapped, teacher_variables(), state, shards(4))


@pytest.mark.slow
def test_the_generator_s_loss_falls_and_every_parameter_learns():
    total = series(generator_run(), "generator_loss")
    assert np.isfinite(total).all()
    assert total[-1] < 0.9 * total[0]
    center = series(generator_run(), "generator_center")
    assert center[-1] < center[0]
    state = generator_run()[0][0]
    assert int(state.step) == 1
    found = moved(state.generator.params, generator_params())
    assert min(found.values()) > 1e-5, found


@pytest.mark.slow
def test_the_student_s_loss_falls_and_parameters_and_ranges_learn():
    loss = series(student_run(), "student_loss")
    assert np.isfinite(loss).all()
    assert loss[-1] < 0.9 * loss[0]
    # In percent, of 8 samples.
    agreement = np.asarray(series(student_run(), "agreement"))
    assert (agreement >= 0).all() and (agreement <= 100).all()
    assert agreement.max() > 1
    state, start = student_run()[0][0], quantize_state(student_parts()).student
    for name, by in moved(state.student.params, start.params).items():
        # A rectifier has nothing below its low end, which stays.
        assert (by > 0) == (not name.endswith("['low']")), name


@pytest.mark.slow
def test_a_generator_that_does_not_learn_stays_as_it_is_by_the_bit():
    state, metrics = student_run()[-1]
    assert int(state.step) == 25
    assert_equal(state.generator.params, generator_params())
    assert_equal(state.generator.opt_state, ADAM.init(generator_params()))
    assert not any(name.startswith("generator") for name in metrics)


@pytest.mark.slow
def test_the_teacher_is_unchanged_by_the_bit():
    before = jax.tree.map(lambda x: np.array(x).tobytes(), teacher_variables())
    generator_run(), student_run()
    after = jax.tree.map(lambda x: np.array(x).tobytes(), teacher_variables())
    assert before == after


@pytest.mark.slow
def test_both_learn_and_the_student_sees_images_from_before_the_generator_s_step():
    done = published_run(4)
    assert min(moved(done[0][0].generator.params, generator_params()).values()) > 0
    parts = student_parts(
        "identity", rule=RangeRule(observe_steps=2, decay=0.75), optimizer=SGD
    )
    step = make_quantize_step(generator_parts(), parts, generator_learns=False)
    state = quantize_state(parts, float("nan"), float("nan"))
    ((alone, _),) = run(step, state, 1)
    # The same images, compiled otherwise.
    assert_close(alone.student.params, done[0][0].student.params, atol=1e-6)


@pytest.mark.slow
def test_observed_ranges_follow_and_are_then_frozen_by_the_bit():
    ranges = [state.student.params["ranges"] for state, _ in published_run(4)]
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(ranges))
    assert all(ends["high"] > ends["low"] == 0 for ends in ranges[0].values())
    assert min(moved(ranges[0], ranges[1])[f"['act{i}']['high']"] for i in range(2)) > 0
    assert_equal(ranges[1], ranges[2])
    assert_equal(ranges[2], ranges[3])
    weights = [state.student.params["params"] for state, _ in published_run(4)]
    assert min(moved(weights[2], weights[3]).values()) > 0


@pytest.mark.slow
def test_a_student_that_waits_stays_by_the_bit_and_its_ranges_follow():
    rule = RangeRule(observe_steps=2, decay=0.75)
    parts = student_parts("identity", rule=rule, optimizer=SGD, waits=2)
    step = make_quantize_step(generator_parts(), parts, generator_learns=True)
    done = run(step, quantize_state(parts, float("nan"), float("nan")), 4)
    students = [state.student for state, _ in done]
    for student in students[:2]:
        assert_equal(student.params["params"], student_start())
        assert_equal(student.opt_state, SGD.init(student.params))
    ranges = [student.params["ranges"] for student in students]
    assert min(moved(ranges[0], ranges[1])[f"['act{i}']['high']"] for i in range(2)) > 0
    # Frozen before the student's first step, which is that of a new optimiser.
    assert_equal(ranges[1], ranges[2])
    assert_equal(ranges[2], ranges[3])
    assert min(moved(students[2].params["params"], student_start()).values()) > 0
    # The generator has learnt all along, with one optimiser.
    for (before, _), (after, _) in itertools.pairwise(done):
        by = moved(before.generator.params, after.generator.params)
        assert min(by.values()) > 0
    assert int(done[-1][0].generator.opt_state[0].count) == 4
    assert all(np.isfinite(series(done, "student_loss")))


@pytest.mark.slow
def test_one_device_and_four_give_the_same_generator_student_and_losses():
    one, four = published_run(1), published_run(4)
    # Sums in another order, in float32: a gradient's rounding of 1e-7 moves a parameter
    # by up to 1e-2 * 1e-7 / eps = 1e-6 a step, and what follows from that. Beyond that
    # an activation may be rounded to another code, a step of its grid apart, which none
    # of the few here is.
    for k in (0, 2):
        for learner in ("generator", "student"):
            params = [getattr(done[k][0], learner).params for done in (one, four)]
            assert_close(*params, atol=2e-5)
        assert_close(one[k][1], four[k][1], atol=1e-3)
    assert min(moved(four[2][0].student.params["params"], student_start()).values()) > 0


def test_equal_parts_make_the_same_step():
    """So a second phase or run does not compile again."""
    assert make_generator_step(generator_parts()) is make_generator_step(
        generator_parts()
    )
    one, other = (
        make_quantize_step(generator_parts(), student_parts(), generator_learns=learns)
        for learns in (True, False)
    )
    assert one is not other
    again = make_quantize_step(
        generator_parts(), student_parts(), generator_learns=False
    )
    assert again is other


@pytest.mark.parametrize("term", TERMS)
def test_terms_of_weight_zero_are_left_out_of_the_generator(term):
    off = {f"{name}_weight": 0.0 for name in TERMS}
    loss = GeneratorLoss(**{**off, f"{term}_weight": 1.0})
    parts = generator_parts(loss, axis_name=None)
    conditions = jax.eval_shape(parts.sampling.draw, jnp.arange(4, dtype=jnp.uint32))
    _, (_, metrics) = jax.eval_shape(
        functools.partial(generator_terms, parts),
        generator_params(),
        teacher_variables(),
        conditions,
        jnp.int32(0),
    )
    assert set(metrics) == {"recognised", f"generator_{term}"}


@pytest.mark.slow
@pytest.mark.parametrize("term", ["class", "kl", "hint"])
def test_terms_of_weight_zero_are_left_out_of_the_student(term):
    off = {"class_weight": 0.0, "kl_weight": 0.0, "hint_weight": 0.0}
    parts = student_parts(loss=StudentLoss(**{**off, f"{term}_weight": 1.0}))
    step = make_quantize_step(generator_parts(), parts, generator_learns=False)
    _, metrics = shapes_of(step, quantize_state(parts))
    assert set(metrics) == {"student_loss", "agreement", f"student_{term}"}


@pytest.mark.slow
@pytest.mark.parametrize("shift", [3, 0])
def test_the_generator_s_loss_is_the_weighted_sum_of_its_terms(shift):
    parts = generator_parts(axis_name=None, shift=shift)
    params = generator_params()
    teacher_variables()  # cached: not to be made while a function is traced

    @jax.jit
    def terms(step):
        conditions = parts.sampling.draw(jnp.arange(COUNT, dtype=jnp.uint32))
        total, (images, found) = generator_terms(
            parts, params, teacher_variables(), conditions, step
        )
        seen = shift_images(images, conditions.shift, BLACK) if shift else images
        observed = functools.partial(
            observe, parts.teacher, teacher_variables(), seen, conditions.label
        )
        view, train_view = observed(train=False), observed(train=True)
        expected = {
            "class": losses.class_loss(view.logits, conditions.label),
            "statistics": losses.statistics_loss(
                train_view.statistics, teacher_variables()["batch_stats"], "relative"
            ),
            "center": losses.center_loss(
                attention_center(view.attention, 2),
                conditions.center + conditions.shift * 2 / SIZE,
            ),
            "pair": losses.pair_loss(conditions.latent, images),
            "consistency": losses.consistency_loss(
                view.attention, train_view.attention
            ),
        }
        return total, found, expected

    for step, ramp in ((0, 0.25), (2, 0.75), (9, 1.0)):
        total, found, expected = terms(jnp.int32(step))
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[f"generator_{name}"], value, rtol=1e-4, atol=1e-6
            )
        weights = {name: getattr(ALL_TERMS, f"{name}_weight") for name in TERMS}
        weights["center"] *= ramp
        by_hand = sum(weights[name] * float(expected[name]) for name in TERMS)
        np.testing.assert_allclose(total, by_hand, rtol=1e-4)


def test_a_learner_keeps_no_buffer_of_what_it_was_made_of():
    """Steps donate the state, but the teacher's parameters must stay."""
    params = teacher_variables()["params"]
    learner = create_learner(params, ADAM)
    assert_equal(learner.params, params)
    mine, given = (
        {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}
        for tree in (learner, params)
    )
    assert not mine & given
    assert len(mine) == len(jax.tree.leaves(learner))

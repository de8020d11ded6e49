"""Steps of generator and student."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from acq.denoisers.observation import observe, statistics_distance
from acq.denoisers.phases import (
    generated_images,
    generator_phase,
    image_generator_parts,
    student_phase,
)
from acq.denoisers.ranges import ranges_of_images
from acq.denoisers.settings import (
    STATISTICS,
    ImageGeneratorSettings,
    ImageQuantizationSettings,
)
from acq.denoisers.steps import make_image_generator_step, output_distance
from common.devices import AXIS, replicate, shard_batch
from common.errors import UserError
from tests.acq.denoisers.small_images import bits_of, images, small_network

SETTINGS = ImageQuantizationSettings(
    image_size=8,
    generator=ImageGeneratorSettings(width=4, latent=6),
    generator_steps=20,
    student_steps=20,
    batch_size=16,
)


def run(phase, steps):
    state, seen, draws = replicate(phase.state), [], iter(phase.draws)
    for _ in range(steps):
        state, metrics = phase.p_step(state, shard_batch(next(draws)))
        seen.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), seen


@pytest.mark.slow
def test_a_view_has_the_statistics_of_the_norm_s_input():
    network, x = small_network(), images(2)
    view = observe(network.module, network.variables, x, last="last")
    np.testing.assert_allclose(view.attention.sum((1, 2)), 1, rtol=1e-5)
    assert sorted(flatten_dict(view.inputs, sep="/")) == [
        *("first/x", "last/x", "middle/x")
    ]
    before = jax.nn.relu(view.inputs["middle"]["x"])
    np.testing.assert_array_equal(before, view.inputs["middle"]["x"])
    kernel = network.variables["params"]["middle"]["kernel"]
    y = jax.lax.conv_general_dilated(
        before, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = view.statistics["norm"]
    np.testing.assert_allclose(found["mean"], y.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], y.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.slow
def test_images_of_the_training_have_no_distance_and_others_have_one():
    network, x = small_network(), images(4)
    view = observe(network.module, network.variables, x, last="last")
    # A training on these images would have left their statistics.
    variables = {**network.variables, "batch_stats": view.statistics}
    trained = dataclasses.replace(network, variables=variables)
    assert statistics_distance(trained, x, "last") < 1e-6
    # Twice the contrast is nearly four times the variance.
    assert statistics_distance(trained, 2 * x, "last") > 0.5


@pytest.mark.slow
def test_the_generator_learns_the_statistics():
    network = small_network()
    settings = dataclasses.replace(SETTINGS, generator_steps=80)
    _, seen = run(generator_phase(settings, network, "last"), 80)
    first, last = (
        np.mean([m["generator_statistics"] for m in part])
        for part in (seen[:10], seen[-10:])
    )
    assert last < 0.95 * first
    assert set(seen[0]) == {
        *("generator_loss", "generator_statistics", "generator_center"),
        *("generator_pair", "generator_consistency"),
    }


@pytest.mark.slow
def test_the_student_comes_closer_and_the_statistics_alone_are_fewer_terms():
    network, bits = small_network(), bits_of(small_network(), 3, 3)
    few = ImageQuantizationSettings(
        **{
            **{name: getattr(SETTINGS, name) for name in ("image_size", "batch_size")},
            "generator": ImageGeneratorSettings(width=4, latent=6, loss=STATISTICS),
            "generator_steps": 1,
            "student_steps": 30,
        }
    )
    state, seen = run(generator_phase(few, network, "last"), 1)
    assert set(seen[0]) == {"generator_loss", "generator_statistics"}
    made = generated_images(few, network, state.generator.params, 8)
    assert made.shape == (8, 8, 8, 1) and np.all(np.isfinite(made))
    ranges = ranges_of_images(network, bits, [made])
    phase = student_phase(few, network, bits, state.generator.params, ranges)
    before = jax.tree.map(np.array, network.variables)
    after, seen = run(phase, 30)
    first, last = (
        np.mean([m["student_loss"] for m in part]) for part in (seen[:5], seen[-5:])
    )
    assert last < 0.9 * first
    # The float network is frozen; the student's weights and ranges move.
    jax.tree.map(np.testing.assert_array_equal, before, network.variables)
    moved = after.student.params
    kernels = moved["params"]["middle"], before["params"]["middle"]
    assert np.any(kernels[0]["kernel"] != kernels[1]["kernel"])
    ends = moved["ranges"]["middle"], ranges["middle"]
    assert np.any(ends[0]["high"] != ends[1]["high"])
    np.testing.assert_array_equal(ends[0]["end"], ends[1]["end"])


@pytest.mark.slow
def test_four_devices_do_what_one_does_with_the_joined_batch():
    network = small_network()
    phase = generator_phase(SETTINGS, network, "last")
    batch = next(iter(phase.draws))
    _, metrics = phase.p_step(replicate(phase.state), shard_batch(batch))
    parts = image_generator_parts(SETTINGS, network, "last")
    alone = jax.jit(
        jax.vmap(
            make_image_generator_step(parts),
            in_axes=(None, None, 0),
            axis_name=AXIS,
        )
    )
    fresh = generator_phase(SETTINGS, network, "last").state
    _, metrics_1 = alone(
        network.variables, fresh, jax.tree.map(lambda a: jnp.asarray(a)[None], batch)
    )
    for name, value in metrics.items():
        np.testing.assert_allclose(value, metrics_1[name][0], rtol=1e-3, err_msg=name)


def test_the_distance_of_outputs_is_relative_to_what_the_network_changes():
    # The middle one of three slices changes by 2; the student misses 1 of it.
    seen = jnp.zeros((1, 2, 4, 4, 3)).at[..., 1].set(5.0)
    wanted, outputs = (jnp.full((1, 2, 4, 4, 1), value) for value in (7.0, 6.0))
    found = jax.vmap(output_distance, axis_name=AXIS)(seen, outputs, wanted)
    np.testing.assert_allclose(found, [1 / 4], rtol=1e-5)


def test_sizes_that_do_not_fit_are_refused():
    network = small_network()
    odd = ImageQuantizationSettings(image_size=10)
    with pytest.raises(UserError, match=r"generator\.image_size: got 10, .* of 4"):
        generator_phase(odd, network, "last")
    short = ImageQuantizationSettings(
        image_size=8, generator=ImageGeneratorSettings(latent=2)
    )
    with pytest.raises(UserError, match=r"generator\.latent: got 2, .* at least 6"):
        generator_phase(short, network, "last")

"""The training step: devices, averages, accumulation, neighbouring slices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.devices import AXIS, pmap_step
from configs import ipv2_redcnn
from ipv2.models import create_model
from ipv2.purification.purify import PurifyParams
from ipv2.tasks import settings
from ipv2.training.denoiser import Flow, Regression, make_denoise
from ipv2.training.losses import create_loss
from ipv2.training.pairs import PairParams
from ipv2.training.train_step import (
    create_state,
    make_examples,
    make_train_step,
    training_stacks,
)

SIZE = 32


def _batch(count=4, channels=1):
    rng = np.random.default_rng(0)
    gt = np.where(rng.random((count, channels, SIZE, SIZE)) < 0.5, -850, 40)
    return {
        "lq": jnp.asarray(gt + rng.normal(0, 100, gt.shape), jnp.int16),
        "gt": jnp.asarray(gt, jnp.int16),
        "spacing_mm": jnp.full((count, 2), 5.0),
        "draw": jnp.arange(count, dtype=jnp.uint32),
    }


def _regression(name, **attributes):
    model = create_model(name, **attributes)
    return Regression(model=model, loss=create_loss("mse"))


def _dncnn(channels=1):
    return _regression("dncnn", width=8, depth=4, axis_name=AXIS, channels=channels)


def _flow(channels=1, **options):
    model = create_model("fm", width=8, multipliers=(1,), channels=channels)
    return Flow(model=model, steps=2, **options)


def _step(denoiser, optimizer=None, ema=False, **options):
    optimizer = optimizer or optax.adam(1e-3)
    examples = make_examples(
        PairParams(kind="none"), patch=16, patches_per_slice=2, seed=0
    )
    step = make_train_step(denoiser, optimizer, **options)
    state = create_state(denoiser.init(jax.random.key(1)), optimizer, ema=ema)
    return lambda state, shard: step(state, examples(shard)), state


def _run(step, state, steps=1, devices=1, batch=None):
    """Returns the state after each step, on `devices` virtual devices."""
    over = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        devices=jax.devices()[:devices],
    )
    batch = batch or _batch()
    states = []
    for number in range(steps):
        shard = batch | {"draw": batch["draw"] + 10 * number}
        shard = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), shard)
        state, _ = over(state, shard)
        states.append(jax.tree.map(jnp.asarray, jax.device_get(state)))
    return states


def _assert_close(a, b, atol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "denoiser",
    [_dncnn(), pytest.param(_flow(), marks=pytest.mark.long)],
    ids=["batch_norm", "flow_with_dropout"],
)
def test_one_two_and_four_devices_give_the_same_parameters_after_five_steps(denoiser):
    step, state = _step(denoiser, optax.adam(1e-3, eps=1e-4))
    one, two, four = (_run(step, state, 5, devices)[-1] for devices in (1, 2, 4))
    assert int(one.step) == 5
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, state.params)
    assert max(jax.tree.leaves(moved)) > 3e-3
    # Sums in another order, in float32; Adam divides by at least eps, so a gradient's
    # rounding of 1e-7 moves a parameter by 1e-6 a step.
    for other in (two, four):
        _assert_close(one.variables, other.variables, atol=2e-5)


@pytest.mark.slow
def test_batch_statistics_change_and_are_used():
    step, state = _step(_dncnn())
    (after,) = _run(step, state)
    before = state.collections["batch_stats"]["layer2"]["norm"]
    moved = after.collections["batch_stats"]["layer2"]["norm"]
    assert np.abs(moved["mean"] - before["mean"]).min() > 0
    denoise = make_denoise(_dncnn())
    hu = jnp.full((1, 8, 8, 1), -500.0)
    doubled = jax.tree.map(lambda x: 2 * x, after.collections)
    different = denoise({"params": after.params, **doubled}, hu)
    assert np.abs(different - denoise(after.variables, hu)).max() > 0


@pytest.mark.slow
def test_averaged_parameters_follow_the_recursion():
    step, state = _step(_regression("cnn10"), ema=True, ema_decay=0.5)
    # `pmap_step` donates the state, which must not hold a buffer twice.
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)
    states = _run(step, state, 6)
    average = state.params["conv1"]["kernel"]
    for number, after in enumerate(states):
        decay = min(0.5, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * after.params["conv1"]["kernel"]
        # Float32 rounding of weights of about 0.1.
        np.testing.assert_allclose(after.ema["conv1"]["kernel"], average, atol=1e-7)
    assert states[-1].variables["params"] is states[-1].ema
    plain, state = _step(_regression("cnn10"))
    (after,) = _run(plain, state)
    assert after.ema is None and after.variables["params"] is after.params


@pytest.mark.slow
@pytest.mark.parametrize(
    "denoiser", [_regression("cnn10"), _flow()], ids=["regression", "flow"]
)
def test_parts_of_a_batch_add_up_to_the_whole(denoiser):
    whole, state = _step(denoiser, optax.sgd(1.0))
    parts, _ = _step(denoiser, optax.sgd(1.0), accumulate=4)
    (one,), (four,) = _run(whole, state), _run(parts, state)
    # Gradients of about 1, summed in another order.
    _assert_close(one.params, four.params, atol=1e-5)


def test_the_same_training_again_compiles_nothing():
    """Equal arguments give the same function, other arguments another one."""
    optimizer = settings.optimizer(ipv2_redcnn.get_config("smoke"), 4, 1.0)
    again = settings.optimizer(ipv2_redcnn.get_config("smoke"), 4, 1.0)
    step = pmap_step(make_train_step(_dncnn(), optimizer))
    assert pmap_step(make_train_step(_dncnn(), again)) is step
    assert pmap_step(make_train_step(_dncnn(), again, accumulate=2)) is not step
    other = settings.optimizer(ipv2_redcnn.get_config("smoke"), 5, 1.0)
    assert pmap_step(make_train_step(_dncnn(), other)) is not step


def test_patches_that_cannot_be_cut_are_refused():
    step, state = _step(_regression("cnn10"), accumulate=3)
    with pytest.raises(ValueError, match="8 patches cannot be cut into 3 parts"):
        jax.eval_shape(
            jax.vmap(step, in_axes=(None, 0), axis_name=AXIS),
            state,
            jax.tree.map(lambda x: x[None], _batch()),
        )


@pytest.mark.slow
@pytest.mark.parametrize("make", [_dncnn, _flow], ids=["regression", "flow"])
def test_a_network_of_three_slices_trains_and_denoises_the_middle_one(make):
    denoiser = make(channels=3)
    step, state = _step(denoiser)
    (after,) = _run(step, state, batch=_batch(channels=3))
    assert np.isfinite(
        after.params["conv1" if make is _dncnn else "conv_in"]["kernel"]
    ).all()
    hu = jnp.stack(
        [jnp.full((2, 16, 16), level) for level in (0.0, -1000.0, 500.0)], -1
    )
    # Untrained networks nearly return their input: the middle slice.
    output = make_denoise(denoiser)(state.variables, hu)
    np.testing.assert_allclose(output, -1000.0, atol=100)


@pytest.mark.slow
def test_slices_of_a_stack_get_different_noise():
    batch = _batch(2, channels=3)
    same = jnp.repeat(batch["gt"][:, :1], 3, axis=1)
    shard = batch | {"lq": same, "gt": same}
    rngs = jax.random.split(jax.random.key(0), 2)
    lq, gt = training_stacks(rngs, shard, PairParams(kind="none"))
    assert lq.shape == (2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(lq, gt)
    # The published masks on random pixels blend some noise in everywhere.
    params = PurifyParams(variant="reference", add_noise="reference")
    purified = PairParams(kind="purified", purification=params)
    lq, _ = training_stacks(rngs, shard, purified)
    assert np.abs(lq[..., 0] - lq[..., 1]).max() > 0
    assert np.abs(lq[0] - lq[1]).max() > 0


@pytest.mark.slow
def test_a_flow_s_dropout_in_evaluation_is_the_same_for_every_slice():
    hu = jnp.broadcast_to(jnp.linspace(-1000, 0, 16), (2, 16, 16))[..., None]
    published = _flow(dropout_in_evaluation=True)
    variables = published.init(jax.random.key(0))
    # The near-zero last layer of an untrained network would hide the dropout.
    variables["params"]["conv_out"]["kernel"] += 0.05
    dropped = make_denoise(published)(variables, hu)
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert np.abs(dropped - make_denoise(_flow())(variables, hu)).max() > 1

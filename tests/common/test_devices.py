import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import devices
from common.errors import UserError


def test_per_process_shares_or_refuses():
    assert devices.per_process(8, "train.batch_size") == 8
    with pytest.raises(UserError, match=r"config\.train\.batch_size: got 6.*multiple"):
        devices.per_process(6, "train.batch_size")


def test_shard_batch_splits_leading_axis():
    batch = {"x": np.arange(24).reshape(8, 3), "draw": np.arange(8)}
    shards = devices.shard_batch(batch)
    assert shards["x"].shape == (4, 2, 3)
    np.testing.assert_array_equal(shards["x"].reshape(8, 3), batch["x"])


@pytest.mark.parametrize("sizes", [(8, 4), (6, 6)])
def test_shard_batch_refuses(sizes):
    with pytest.raises(ValueError, match="leading sizes"):
        devices.shard_batch({str(i): np.zeros(n) for i, n in enumerate(sizes)})


def _step(state, shard):
    gradient = jax.lax.pmean(jnp.mean(shard["x"]), devices.AXIS)
    return state + gradient, {"loss": gradient}


def test_pmap_step_keeps_state_unstacked_and_replicated():
    step = devices.pmap_step(_step)
    state = devices.replicate(jnp.zeros(()))
    shards = devices.shard_batch({"x": np.arange(8.0, dtype=np.float32)})
    for _ in range(2):
        state, metrics = step(state, shards)
    assert state.shape == () and metrics["loss"].shape == ()
    assert float(state) == 7.0  # twice the mean of 0..7
    devices.refuse_divergence(state)


def test_pmap_step_compiles_once():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event)
    )
    # A function of its own: jax keeps what it compiled for others.
    step = devices.pmap_step(lambda state, shard: _step(state, shard))
    state = devices.replicate(jnp.zeros(()))
    shards = devices.shard_batch({"x": np.arange(8.0, dtype=np.float32)})
    counts = []
    for _ in range(3):
        state, _ = step(state, shards)
        counts.append(sum("backend_compile" in event for event in compiled))
    assert counts[0] >= 1  # the listener hears
    assert counts[0] == counts[1] == counts[2]


def test_refuse_divergence_finds_a_missing_pmean():
    step = devices.pmap_step(lambda s, b: (s + jnp.mean(b["x"]), {}))
    shards = devices.shard_batch({"x": np.arange(8.0, dtype=np.float32)})
    state, _ = step(jnp.zeros(()), shards)
    with pytest.raises(RuntimeError, match=r"\['w'\].*pmean"):
        devices.refuse_divergence({"w": state})


def test_pmap_eval_keeps_order():
    apply = devices.pmap_eval(lambda w, b: w * b["x"])
    x = np.arange(8.0, dtype=np.float32)
    out = apply(jnp.float32(2), devices.shard_batch({"x": x}))
    np.testing.assert_array_equal(np.reshape(out, -1), 2 * x)


def test_values_of_the_first_process_are_the_own_in_one_process():
    values = np.arange(3)
    assert devices.of_first_process(values) is values


def test_any_process_is_the_flag_in_one_process():
    assert devices.any_process(True) and not devices.any_process(False)

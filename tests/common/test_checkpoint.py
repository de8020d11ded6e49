import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import checkpoint
from common.errors import UserError


def _state(value):
    return {"w": jnp.full((3,), value), "step": jnp.int32(value)}


def test_restore_gives_the_newest_and_old_ones_go(tmp_path):
    with checkpoint.Checkpoints(tmp_path / "c", keep=2) as saved:
        assert saved.restore(_state(0)) is None
        for step in (1, 2, 3):
            saved.save(step, _state(step), {"next_index": step})
        saved.save(3, _state(99), {})  # this step is there already
    with checkpoint.Checkpoints(tmp_path / "c", keep=2) as saved:
        step, state, data_state = saved.restore(_state(0))
    assert (step, data_state) == (3, {"next_index": 3})
    np.testing.assert_array_equal(state["w"], np.full((3,), 3.0))
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["2", "3"]


def test_restore_refuses_another_network(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(1, _state(1), {})
        with pytest.raises(
            UserError,
            match=r"another network:\n  w: stored \(3,\), this network has \(4,\)\n",
        ):
            saved.restore({"w": jnp.zeros((4,)), "step": jnp.int32(0)})


def test_restore_refuses_a_damaged_checkpoint(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as saved:
        saved.save(1, _state(1), {})
    for path in (tmp_path / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with (
        checkpoint.Checkpoints(tmp_path) as saved,
        pytest.raises(UserError, match="missing or damaged"),
    ):
        saved.restore(_state(0))


def test_export_round_trip(tmp_path):
    variables = {"params": {"k": jnp.arange(6.0).reshape(2, 3)}}
    for model in ("a", "b"):  # the second replaces the first
        checkpoint.export_variables(tmp_path / "e", variables, {"model": model})
    assert checkpoint.load_manifest(tmp_path / "e") == {"model": "b"}
    like = jax.eval_shape(lambda: variables)
    loaded = checkpoint.load_variables(tmp_path / "e", like)
    np.testing.assert_array_equal(loaded["params"]["k"], variables["params"]["k"])


def test_load_refuses_missing_and_mismatched(tmp_path):
    with pytest.raises(UserError, match="no exported network here"):
        checkpoint.load_manifest(tmp_path)
    with pytest.raises(UserError, match="missing or damaged"):
        checkpoint.load_variables(tmp_path, jax.eval_shape(lambda: jnp.zeros(2)))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        checkpoint.load_manifest(tmp_path)
    checkpoint.export_variables(tmp_path, {"k": jnp.zeros((2,))}, {})
    with pytest.raises(UserError, match=r"k: stored \(2,\), this network has \(3,\)"):
        checkpoint.load_variables(
            tmp_path, {"k": jax.ShapeDtypeStruct((3,), "float32")}
        )

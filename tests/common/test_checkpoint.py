import hashlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import checkpoint
from common.errors import UserError
from common.version import COMMIT, VERSION


def _state(value):
    return {"w": jnp.full((3,), value), "step": jnp.int32(value)}


def test_restore_gives_the_newest_and_old_ones_go(tmp_path):
    with checkpoint.Checkpoints(tmp_path / "c", keep=2) as saved:
        assert saved.restore(_state(0)) is None
        for step in (1, 2, 3):
            saved.save(step, _state(step), {"next_index": step})
        saved.save(3, _state(99), {})  # this step exists already
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


def _listing(folder):
    """Every file and folder with its times and size."""
    paths = [folder, *sorted(folder.rglob("*"))]
    stats = [(str(path), path.stat()) for path in paths]
    return [(p, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for p, s in stats]


def test_read_only_leaves_another_run_s_folder_as_it_is(tmp_path):
    folder = tmp_path / "checkpoints"
    with checkpoint.Checkpoints(folder, keep=3) as saved:
        for step in (1, 2, 3):
            saved.save(step, _state(step), {})
    # What a run that is writing, or was killed at it, has there.
    (folder / "4.orbax-checkpoint-tmp-7").mkdir()
    before = _listing(tmp_path)
    with checkpoint.Checkpoints(folder, read_only=True) as saved:
        step, state, _ = saved.restore(_state(0))
    assert step == 3 and _listing(tmp_path) == before
    np.testing.assert_array_equal(state["w"], np.full((3,), 3.0))
    # Opened to be written, and written to, the same folder changes: the check can fail.
    with checkpoint.Checkpoints(folder) as saved:
        saved.save(4, _state(4), {})
    assert _listing(tmp_path) != before


VARIABLES = {
    "params": {"conv": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}},
    "batch_stats": {"mean": jnp.zeros(3)},
}
LIKE = jax.eval_shape(lambda: VARIABLES)


def test_export_round_trip(tmp_path):
    for model in ("a", "b"):  # the second replaces the first
        checkpoint.export_variables(tmp_path / "e", VARIABLES, {"model": model})
    manifest = checkpoint.load_manifest(tmp_path / "e")
    assert manifest["model"] == "b"
    assert manifest["format_version"] == checkpoint.FORMAT_VERSION
    assert manifest["software_version"] == VERSION
    assert manifest["commit"] == COMMIT
    loaded = checkpoint.load_variables(tmp_path / "e", LIKE)
    assert jax.tree.structure(loaded) == jax.tree.structure(VARIABLES)
    for ours, theirs in zip(
        jax.tree.leaves(loaded), jax.tree.leaves(VARIABLES), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_the_hash_is_that_of_names_types_shapes_and_bytes():
    line = b"a/b float32 2x1\n" + np.array([1, 2], "<f4").tobytes()
    line += b"c int32 \n" + np.array(3, "<i4").tobytes()
    tree = {"c": np.int32(3), "a": {"b": np.array([[1], [2]], np.float32)}}
    found = checkpoint.hash_variables(tree)
    assert found == hashlib.sha256(line).hexdigest()
    other_order = {"a": {"b": jnp.array([[1.0], [2.0]])}, "c": jnp.int32(3)}
    big_endian = {"c": np.int32(3), "a": {"b": np.array([[1], [2]], ">f4")}}
    assert checkpoint.hash_variables(other_order) == found
    assert checkpoint.hash_variables(big_endian) == found
    for changed in (
        {"c": np.int32(3), "a": {"x": tree["a"]["b"]}},
        {"c": np.int32(3), "a": {"b": tree["a"]["b"].T}},
        {"c": np.int32(3), "a": {"b": tree["a"]["b"].astype(np.float16)}},
        {"c": np.int32(4), "a": tree["a"]},
    ):
        assert checkpoint.hash_variables(changed) != found


def test_load_refuses_missing_and_mismatched(tmp_path):
    with pytest.raises(UserError, match="no exported network here"):
        checkpoint.load_manifest(tmp_path)
    checkpoint.export_variables(tmp_path, {"k": jnp.zeros((2,))}, {})
    with pytest.raises(UserError, match=r"k: stored \(2,\), this network has \(3,\)"):
        checkpoint.load_variables(
            tmp_path, {"k": jax.ShapeDtypeStruct((3,), "float32")}
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", r"manifest\.json: not readable as JSON .*Copy the folder again"),
        (b"\xff\xfe", r"manifest\.json: not readable as JSON"),
        (b"[]", r"manifest\.json: lacks format_version, sha256, files"),
        (b'{"model": "a"}', r"lacks format_version, sha256, files"),
        (
            b'{"format_version": 9, "sha256": "", "files": {}, '
            b'"software_version": "3"}',
            r"format version 9, written by version 3 .*Update the software",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path, content, said):
    checkpoint.export_variables(tmp_path, VARIABLES, {})
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        checkpoint.load_variables(tmp_path, LIKE)


def test_any_damage_of_any_file_is_named(tmp_path):
    source = tmp_path / "whole"
    checkpoint.export_variables(source, VARIABLES, {})
    files = [
        path.relative_to(source)
        for path in (source / "variables").rglob("*")
        if path.is_file()
    ]
    assert len(files) > 3
    rng = np.random.default_rng(0)
    for name in files:
        content = (source / name).read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        for damage, said in (
            (bytes(flipped), "damaged"),
            (content[:-1], "damaged"),
            (None, "missing"),
        ):
            (source / name).unlink()
            if damage is not None:
                (source / name).write_bytes(damage)
            pattern = rf"{re.escape(name.as_posix())}: {said}.*Copy the whole export"
            with pytest.raises(UserError, match=pattern):
                checkpoint.load_variables(source, LIKE)
            (source / name).write_bytes(content)
    checkpoint.load_variables(source, LIKE)


def test_arrays_of_another_export_are_refused(tmp_path):
    for name in ("a", "b"):
        changed = jax.tree.map(lambda leaf, name=name: leaf + (name == "b"), VARIABLES)
        checkpoint.export_variables(tmp_path / name, changed, {})
    manifest = checkpoint.load_manifest(tmp_path / "b")
    other = checkpoint.load_manifest(tmp_path / "a")
    path = tmp_path / "b/manifest.json"
    path.write_text(json.dumps(manifest | {"sha256": other["sha256"]}))
    with pytest.raises(UserError, match=r"manifest\.json: the arrays have SHA-256"):
        checkpoint.load_variables(tmp_path / "b", LIKE)

"""ONNX files of denoisers: what they say, how they are applied, what is refused."""

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from common.errors import UserError
from ipv2.deploy.onnx_file import save_onnx
from ipv2.inference.onnx_denoiser import load_onnx
from ipv2.inference.onnx_metadata import OnnxMetadata
from tests.ipv2.deploy.small_networks import expected, noisy, trained

OPENVINO = pytest.mark.skipif(
    not importlib.util.find_spec("openvino"), reason="no openvino"
)
ATOL_HU = 0.02  # as in tests/ipv2/deploy/test_network_graph.py


@pytest.fixture(scope="module")
def network():
    return trained("dncnn", channels=3)


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(network, path)
    return path


def _without(package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == package else find(name),
    )


def _changed(path, folder, change):
    """Returns a copy of a file whose model was changed."""
    model = onnx.load(str(path))
    change(model)
    copy = folder / "changed.onnx"
    onnx.save(model, str(copy))
    return copy


def test_a_file_says_what_it_takes(network, path):
    found = load_onnx(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.metadata == OnnxMetadata(
        network="dncnn",
        slices=3,
        stride=1,
        radius=4,
        fixed=False,
        least_side=32,
        tile=0,
        variables_sha256="5" * 64,
        version=found.metadata.version,
        commit=found.metadata.commit,
        manifest=network.manifest,
    )
    text = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert (text["format"], text["unit"]) == ("ipv2 denoiser 1", "HU")
    assert json.loads(text["manifest"])["model"]["name"] == "dncnn"
    assert found.describe().startswith("network dncnn (channels 3, depth 4, dtype flo")
    assert f"ONNX file of SHA-256 {found.sha256}" in found.describe()
    assert found.identity["runtime"] == "onnxruntime"


def test_doses_of_simulated_pairs_are_told():
    manifest = {"trained_with": {"noise": {"dose": 0.1, "dose_range": (0.02, 0.3)}}}
    given = {"slices": 1, "stride": 1, "radius": None, "fixed": True, "least_side": 64}
    given |= {"tile": 64, "variables_sha256": "", "version": "", "commit": ""}
    one = OnnxMetadata(network="a", manifest=manifest, **given)
    assert "trained_doses" not in one.to_text()
    assert OnnxMetadata.from_text(one.to_text()).radius is None
    manifest["trained_with"]["purify"] = {"version": "simulated"}
    assert one.to_text()["trained_doses"] == "(0.02, 0.3)"
    manifest["trained_with"]["noise"]["dose_range"] = (0.0, 0.0)
    assert one.to_text()["trained_doses"] == "(0.1, 0.1)"


@pytest.mark.parametrize(
    ("tile", "batch_size", "runtime"),
    [
        (0, 1, "onnxruntime"),
        (40, 2, "onnxruntime"),
        pytest.param(40, 2, "openvino", marks=OPENVINO),
    ],
)
def test_slices_and_tiles_are_denoised_as_in_jax(
    network, path, tile, batch_size, runtime
):
    hu = noisy(3, 48, 53)
    stacks = np.stack([hu[[0, 0, 1]], hu[[0, 1, 2]], hu[[1, 2, 2]]]).transpose(
        0, 2, 3, 1
    )
    found = load_onnx(path, runtime)
    tiling = found.tiling(tile=tile, overlap=-1)
    applier = found.applier(batch_size=batch_size, tiling=tiling)
    result = np.stack(list(applier(iter(hu), hu.shape)))
    np.testing.assert_allclose(result, expected(network, stacks), rtol=0, atol=ATOL_HU)


@pytest.mark.slow
def test_sides_are_padded_to_the_stride(tmp_path):
    network = trained("unet")
    save_onnx(network, tmp_path / "model.onnx")
    hu = noisy(1, 45, 34)
    found = load_onnx(tmp_path / "model.onnx")
    applier = found.applier(batch_size=1, tiling=found.tiling(tile=0, overlap=-1))
    (result,) = applier(iter(hu), hu.shape)
    want = expected(network, hu[..., None])[0]
    np.testing.assert_allclose(result, want, rtol=0, atol=ATOL_HU)


def test_images_that_are_too_small_are_refused(path):
    found = load_onnx(path)
    applier = found.applier(batch_size=1, tiling=found.tiling(tile=0, overlap=-1))
    with pytest.raises(UserError, match=r"of 40 x 31 pixels: .*takes at least 32 x 32"):
        next(applier(iter(noisy(3, 40, 31)), (3, 40, 31)))


def _set(key, value):
    def change(model):
        (prop,) = (p for p in model.metadata_props if p.key == key)
        prop.value = value

    return change


def _fixed(model):
    _set("sizes", "fixed")(model)
    _set("least_side", "64")(model)


def test_a_file_of_one_size_takes_tiles_of_it(path, tmp_path):
    found = load_onnx(_changed(path, tmp_path, _fixed))
    assert found.tiling(tile=-1, overlap=-1).tile == 64
    with pytest.raises(UserError, match=r"config.denoise.tile: got 0, accepted: 64 or"):
        found.tiling(tile=0, overlap=-1, section="config.denoise.")


def _without_metadata(model):
    del model.metadata_props[:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _without_metadata,
            r"not an ONNX file of 'ipv2 denoiser 1': .* lacks 'format'",
        ),
        (_set("unit", "mu"), r"in HU: its metadata has unit: got 'mu', accepted: HU\."),
        (_set("format", "ipv2 denoiser 9"), r"format: got 'ipv2 denoiser 9', accepted"),
        (_set("stride", "one"), "its metadata has invalid literal"),
        (_set("slices", "5"), r"got input of .*accepted: one of float32, \(n, 5, h, w"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(path, tmp_path, change, said):
    with pytest.raises(UserError, match=said) as error:
        load_onnx(_changed(path, tmp_path, change))
    assert "changed.onnx" in str(error.value)
    assert "Write one with --task export" in str(error.value)


def test_a_file_of_another_rank_is_refused(path, tmp_path):
    node = onnx.helper.make_node("Identity", ["hu"], ["denoised"])
    value = onnx.helper.make_tensor_value_info
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "flat",
        [value("hu", floats, ("n", "h", "w"))],
        [value("denoised", floats, ("n", "h", "w"))],
    )

    def change(model):
        model.graph.CopyFrom(graph)

    with pytest.raises(UserError, match=r"got input of \[.*'n', 'h', 'w'\].*accepted"):
        load_onnx(_changed(path, tmp_path, change))


@pytest.mark.parametrize("content", [b"", b"not a network", None])
def test_a_damaged_file_is_refused(path, tmp_path, content):
    bad = tmp_path / "bad.onnx"
    whole = path.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=r"bad.onnx: .*(damaged|lacks 'format')"):
        load_onnx(bad)


def test_without_onnxruntime_the_message_has_the_command(path, monkeypatch):
    _without("onnxruntime", monkeypatch)
    with pytest.raises(UserError, match=r"onnxruntime.* pip install -r requirements-e"):
        load_onnx(path)


def test_without_openvino_the_message_has_the_command(path, monkeypatch):
    _without("openvino", monkeypatch)
    with pytest.raises(UserError, match="openvino is missing: pip install openvino"):
        load_onnx(path, "openvino")


def test_another_runtime_is_refused(path):
    with pytest.raises(ValueError, match="got 'tvm', accepted: onnxruntime, openvino"):
        load_onnx(path, "tvm")


@OPENVINO
def test_openvino_names_itself(path):
    found = load_onnx(path, "openvino")
    assert found.identity["runtime"] == "openvino"
    assert f", in openvino {found.runtime.version}" in found.describe()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts threads in /proc")
@pytest.mark.parametrize("cores", [1, 3])
def test_onnxruntime_has_a_thread_for_each_allowed_core(path, cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    before = len(os.listdir("/proc/self/task"))
    found = load_onnx(path)
    # The first one is the caller's.
    assert len(os.listdir("/proc/self/task")) == before + cores - 1
    assert found.runtime.name == "onnxruntime"  # and its session is alive

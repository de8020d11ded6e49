import dataclasses
import hashlib

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy

from acq.classifier import Record
from acq.layers.float import FloatLayers
from acq.models import create_network
from acq.teacher.loading import load_teacher
from acq.teacher.settings import stated_record
from common.checkpoint import export_variables
from common.errors import UserError
from tests.acq import foreign_state_dicts as theirs
from tests.acq import odd_networks
from tests.acq.teacher_config import teacher_settings

OWN = f"{odd_networks.__name__}:Small"
RESNET = create_network("resnet8", FloatLayers(), 10)


def _assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def _save(path, network=RESNET, names=None):
    """Writes random weights of a network; returns them."""
    variables = theirs.random_variables(network)
    if names is None:
        names = theirs.akamaster(1)
    np.savez(path, **theirs.tensors_of(variables, names))
    return variables


def test_a_teacher_is_read_from_a_file(tmp_path):
    path = tmp_path / "w.npz"
    variables = _save(path)
    config = teacher_settings(weights=str(path))
    teacher = load_teacher(config)
    assert teacher.network == RESNET
    _assert_same(teacher.variables, variables)
    assert teacher.record == dataclasses.replace(
        stated_record(config),
        source=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def test_a_network_of_one_s_own_is_read_by_its_module_names(tmp_path):
    network = odd_networks.Small(FloatLayers(), 3)
    names = {"stem": "stem", "norm": "norm", "out": "out"}
    variables = _save(tmp_path / "w.npz", network, names.items())
    config = teacher_settings(
        name=OWN, classes=3, image_size=32, weights=str(tmp_path / "w.npz")
    )
    teacher = load_teacher(config)
    assert teacher.network == network
    _assert_same(teacher.variables, variables)


@pytest.mark.slow
def test_an_export_tells_all_of_its_network(tmp_path):
    variables = theirs.random_variables(RESNET)
    record = stated_record(teacher_settings())
    export_variables(tmp_path, variables, {"classifier": record.to_json()})
    config = teacher_settings(name="resnet8", mean=(), std=(), weights=str(tmp_path))
    teacher = load_teacher(config)
    _assert_same(teacher.variables, variables)
    assert teacher.network == RESNET
    assert dataclasses.replace(teacher.record, source="", sha256="") == record
    assert len(teacher.record.sha256) == 64
    # What the config sets must be what the export says.
    load_teacher(teacher_settings(weights=str(tmp_path), classes=10))
    for key, value in (
        ("name", "resnet20"),
        ("depth", 20),
        ("classes", 100),
        ("image_size", 64),
        ("std", (0.2, 0.2, 0.3)),
        ("sha256", "0" * 64),
        ("shortcut", "projection"),
        ("weights_key", "state_dict_ema"),
    ):
        config = teacher_settings(weights=str(tmp_path), **{key: value})
        shown = "name" if key == "depth" else key
        with pytest.raises(UserError, match=rf"config\.teacher\.{shown}: .*the export"):
            load_teacher(config)


def test_folders_of_other_things_are_refused(tmp_path):
    config = teacher_settings(weights=str(tmp_path))
    with pytest.raises(UserError, match="no exported network here"):
        load_teacher(config)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"weights=.*/model\.safetensors$"):
        load_teacher(config)
    export_variables(tmp_path, {"params": np.zeros(2)}, {"model": {"name": "redcnn"}})
    with pytest.raises(UserError, match="not of a classifier"):
        load_teacher(config)


@pytest.mark.slow
def test_without_weights_the_hub_s_file_is_taken(tmp_path, monkeypatch):
    variables = theirs.random_variables(RESNET)
    tensors = theirs.tensors_of(variables, theirs.akamaster(1))
    path = tmp_path / "model.safetensors"
    contiguous = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
    safetensors.numpy.save_file(contiguous, path)
    asked = []

    def download(*arguments, **options):
        asked.append((*arguments, *options.values()))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    config = teacher_settings(
        hub_repo="timm/resnet8", hub_file="model.safetensors", hub_revision="v1"
    )
    _assert_same(load_teacher(config).variables, variables)
    assert asked == [("timm/resnet8", "model.safetensors", "v1")]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    config = dataclasses.replace(config, hub_sha256=found)
    assert load_teacher(config).record.sha256 == found
    # A recipe's hash is of the hub's file; weights from elsewhere are others.
    config = dataclasses.replace(config, hub_sha256="0" * 64)
    with pytest.raises(UserError, match=r"config\.teacher\.hub_sha256 says 0000"):
        load_teacher(config)
    config = dataclasses.replace(config, weights=str(path))
    assert load_teacher(config).record.sha256 == found
    config = dataclasses.replace(config, sha256="1" * 64)
    with pytest.raises(UserError, match=r"config\.teacher\.sha256 says 1111"):
        load_teacher(config)


def test_a_hub_that_cannot_be_reached_tells_all_of_its_file(monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    hub = {"hub_repo": "a/b", "hub_file": "w.safetensors", "hub_sha256": "12" * 32}
    with pytest.raises(UserError) as error:
        load_teacher(teacher_settings(name="resnet18", classes=1000, **hub))
    # 11,689,512 parameters and 9,600 statistics of 4 bytes.
    facts = f"w.safetensors of a/b (revision main, about 47 MB, SHA-256 {'12' * 32})"
    assert facts in str(error.value)
    assert "https://huggingface.co/a/b/resolve/main/w.safetensors" in str(error.value)
    assert str(error.value).endswith("--config.teacher.weights=FOLDER/w.safetensors")


@pytest.mark.slow
def test_wrong_teachers_are_refused(tmp_path):
    path = tmp_path / "w.npz"
    _save(path)
    with pytest.raises(UserError, match=r"config\.teacher\.weights: needed"):
        load_teacher(teacher_settings())
    with pytest.raises(UserError, match=r"w\.npz: not the weights of resnet8"):
        load_teacher(teacher_settings(shortcut="projection", weights=str(path)))
    with pytest.raises(UserError, match=r"--config\.teacher\.classes=10"):
        load_teacher(teacher_settings(classes=100, weights=str(path)))
    without_norm = OWN.replace("Small", "WithoutNorm")
    config = teacher_settings(
        name=without_norm, classes=3, image_size=32, weights=str(path)
    )
    with pytest.raises(UserError, match="it has no batch normalisation"):
        load_teacher(config)
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"w\.npz: not a file of weights"):
        load_teacher(teacher_settings(weights=str(path)))


def _export(folder, network, **record):
    """Exports a network with random weights, as it is named in the record."""
    variables = theirs.random_variables(network)
    known = stated_record(teacher_settings(**record))
    export_variables(folder, variables, {"classifier": known.to_json()})


@pytest.mark.slow
def test_strides_that_an_export_says_must_be_those_of_the_config(tmp_path):
    network = create_network("resnet50", FloatLayers(), 3, stride_in_first=True)
    _export(tmp_path, network, name="resnet50", classes=3, stride_in_first=True)
    open_keys = {"name": "resnet50", "weights": str(tmp_path)}
    teacher = load_teacher(teacher_settings(**open_keys))
    assert teacher.network == network
    load_teacher(teacher_settings(**open_keys, stride_in_first=True))
    with pytest.raises(UserError, match="stride_in_first: False, the export has True"):
        load_teacher(teacher_settings(**open_keys, stride_in_first=False))


def test_an_export_that_was_never_trained_is_refused(tmp_path):
    variables = theirs.random_variables(RESNET)
    variables["batch_stats"] = {
        layer: {"mean": np.zeros_like(s["mean"]), "var": np.ones_like(s["var"])}
        if "mean" in s
        else {
            inner: {"mean": np.zeros_like(t["mean"]), "var": np.ones_like(t["var"])}
            for inner, t in s.items()
        }
        for layer, s in variables["batch_stats"].items()
    }
    record = stated_record(teacher_settings())
    export_variables(tmp_path, variables, {"classifier": record.to_json()})
    with pytest.raises(UserError, match="never trained: batch_stats/bn1/mean is all 0"):
        load_teacher(teacher_settings(weights=str(tmp_path)))


def test_records_of_exports_survive_options(tmp_path):
    network = create_network("resnet8", FloatLayers(), 10, width=2)
    record = dataclasses.replace(
        stated_record(teacher_settings()), options={"width": 2}
    )
    variables = theirs.random_variables(network)
    export_variables(tmp_path, variables, {"classifier": record.to_json()})
    teacher = load_teacher(teacher_settings(weights=str(tmp_path)))
    assert teacher.network == network
    assert isinstance(teacher.record, Record)

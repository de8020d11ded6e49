"""Users' own networks: how they are found and checked, and their messages."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from common.errors import UserError
from configs import ipv2_redcnn
from ipv2.ct_io import read_volume
from ipv2.inference.trained import load_trained
from ipv2.models import attributes_of, check_own_network, create_model
from ipv2.tasks.check import check_config
from ipv2.tasks.denoise import denoise
from ipv2.tasks.train import train
from ipv2.training.denoiser_spec import DenoiserSpec
from tests.ipv2 import exports
from tests.ipv2.models import odd_denoisers
from tests.ipv2.pair_folders import config_of, write_pairs

MODULE = odd_denoisers.__name__
ODD = Path(odd_denoisers.__file__)
README = Path(__file__).parents[3] / "ipv2/models/README.md"


def _check(class_name):
    name = f"{MODULE}:{class_name}"
    check_own_network(create_model(name), name)


@pytest.mark.parametrize("class_name", ["Fine", "Normalised"])
def test_a_network_that_keeps_the_rules_is_taken(class_name):
    _check(class_name)
    assert attributes_of(f"{MODULE}:Fine") == {"channels", "depth", "dtype"}


@pytest.mark.parametrize(
    ("class_name", "said"),
    [
        ("WithoutTrain", "it must take a keyword, train"),
        ("AllSlices", r"must return float32 \(2, 64, 64, 1\), .*got float32 .* 3\)"),
        ("Half", r"must return float32 .*got bfloat16"),
        ("Halving", r"images \(1, 61, 47, 1\) it must .*got float32 \(1, 62, 48, 1\)"),
        ("Remembering", "variables other than these: cache"),
        ("Empty", "it has no parameters"),
        ("NegativeRadius", r"radius must be .*got -1\n.*stride must be .*got 0"),
    ],
)
def test_a_broken_rule_is_refused(class_name, said):
    with pytest.raises(UserError, match=rf"(?s){class_name} cannot be trained.*{said}"):
        _check(class_name)


@pytest.mark.parametrize(
    ("class_name", "line", "said"),
    [
        ("OneSize", "# here it raises", r"\(1, 61, 47, 1\).*reshape"),
        ("Dropping", "nn.Dropout", "applied to images .*InvalidRngError"),
    ],
)
def test_errors_of_its_code_name_file_and_line(class_name, line, said):
    lines = ODD.read_text().splitlines()
    place = next(i for i, text in enumerate(lines, 1) if line in text)
    with pytest.raises(UserError, match=said) as error:
        _check(class_name)
    assert f"{ODD}:{place}: " in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{MODULE}:Nothing", r"no linen module 'Nothing'; it has .*Fine"),
        (f"{MODULE}:ODD", "no linen module 'ODD'"),
        ("no_such_package.module:Net", "no module 'no_such_package' can be imported"),
        (f"{MODULE}:WithoutChannels", "lacks channels, radius, stride"),
        (f"{MODULE}:NeedsMore", "default for every attribute; blocks has none"),
    ],
)
def test_names_of_no_such_network_are_refused(name, said):
    with pytest.raises(UserError, match=said):
        create_model(name)


def test_errors_of_its_module_name_file_and_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "raising_network.py").write_text("import jax\n1 / 0\n")
    (tmp_path / "unreadable_network.py").write_text("class Net(\n")
    for name, place in (("raising_network", 2), ("unreadable_network", 1)):
        said = rf"{name} cannot be imported: .*{name}\.py:{place}: .*Error"
        with pytest.raises(UserError, match=said):
            create_model(f"{name}:Net")


def test_an_attribute_that_its_code_refuses_is_refused():
    with pytest.raises(UserError, match=r"odd_denoisers\.py:\d+: .*one slice alone"):
        create_model(f"{MODULE}:Refusing", channels=3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": f"{MODULE}:Half"}, "model.name: .*must return float32"),
        ({"name": f"{MODULE}:Nothing"}, "model.name: .*no linen module"),
        ({"name": f"{MODULE}:Fine", "width": 8}, "model.width: .*has none; it has"),
        ({"name": "no network"}, "model.name: got 'no network', .*package.module:Clas"),
    ],
)
def test_a_config_with_a_wrong_network_is_refused_before_any_training(changes, said):
    config = ipv2_redcnn.get_config()
    config.model.update(changes)
    with pytest.raises(UserError, match=f"(?s){said}"):
        check_config(config)


def test_an_export_without_its_code_is_refused(tmp_path):
    exports.export_network(tmp_path, name=f"{MODULE}:Fine")
    manifest = tmp_path / "export/manifest.json"
    manifest.write_text(manifest.read_text().replace(":Fine", ":Gone"))
    with pytest.raises(UserError, match=r"manifest\.json: .*no linen module 'Gone'"):
        load_trained(tmp_path / "export")


def _example(folder):
    """Writes the network of the README to a file."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    (folder / "my_network.py").write_text(code)
    return "my_network:SmallNet"


@pytest.mark.slow
def test_the_example_is_trained_exported_loaded_and_applied(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.syspath_prepend(tmp_path)
    write_pairs(tmp_path / "root", "AB", size=64)
    config = config_of(tmp_path, data__split=(1.0, 0.0, 0.0))
    config.model.name, config.model.width = _example(tmp_path), 4
    config.purify.version, config.train.duration = "none", "2 steps"
    train(config, tmp_path / "run")
    trained = load_trained(tmp_path / "run/export")
    assert trained.spec == DenoiserSpec(
        name="my_network:SmallNet", attributes={"width": 4}
    )
    assert trained.manifest["step"] == 2
    fresh = trained.denoiser.init(jax.random.key(config.seed))
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), fresh, trained.variables
    )
    assert min(jax.tree.leaves(moved)) > 0
    assert trained.identity["code_sha256"] == trained.manifest["code_sha256"]
    with (tmp_path / "my_network.py").open("a") as file:
        file.write("# changed\n")
    with caplog.at_level("WARNING", logger="absl"):
        changed = load_trained(tmp_path / "run/export")
    assert "the file of my_network:SmallNet has changed" in caplog.text
    assert changed.identity != trained.identity
    source = tmp_path / "root/lq/A/scan.nii"
    denoise(exports.config_of(source, tmp_path / "out"), tmp_path / "run")
    before, after = (read_volume(p) for p in (source, tmp_path / "out/scan.nii"))
    assert after.hu.shape == before.hu.shape and np.any(after.hu != before.hu)

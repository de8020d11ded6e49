import json

import numpy as np
import pytest
import safetensors.numpy

from acq.weights.metadata import statements


def _said(path):
    return [found for found in statements(path) if found.architecture or found.mean]


def test_a_file_without_words_says_nothing(tmp_path):
    path = tmp_path / "resnet18.pth"
    path.write_bytes(b"PK")
    assert _said(path) == []
    # A run's config, and what is no config at all.
    for content in ('{"method": "acq", "seed": 0}', "[]", "{damaged", ""):
        (tmp_path / "config.json").write_text(content)
        assert _said(path) == []


@pytest.mark.parametrize("nested", [True, False])
def test_a_hub_s_config_tells_network_and_images(tmp_path, nested):
    images = {"mean": [0.5, 0.5, 0.5], "std": [1, 0.5, 0.5]}
    config = {"architecture": "resnetblur18"}
    config |= {"pretrained_cfg": images} if nested else images
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"")
    (found,) = _said(path)
    assert found.source == str(tmp_path / "config.json")
    assert found.architecture == "resnetblur18"
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (1.0, 0.5, 0.5))


def test_values_of_another_type_say_nothing(tmp_path):
    config = {"architecture": ["a"], "pretrained_cfg": {"mean": ["x"], "std": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "w").write_bytes(b"")
    assert _said(tmp_path / "w") == []


def test_safetensors_metadata_tell_the_network(tmp_path):
    path = tmp_path / "w"
    tensors = {"w": np.ones(2, np.float32)}
    safetensors.numpy.save_file(tensors, path, {"architecture": "resnet50d"})
    (found,) = _said(path)
    assert found.architecture == "resnet50d"
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    assert _said(path) == []
    whole = path.read_bytes()
    for damaged in (whole[:8], whole[:20], b"\xff" * 8 + b"{"):
        path.write_bytes(damaged)
        assert _said(path) == []


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("resnetblur18.safetensors", "resnetblur18"),
        ("ResNetAA50-a1h.pth", "resnetaa50"),
        ("my_resnetblur50_v2.bin", "resnetblur50"),
    ],
)
def test_names_of_networks_with_another_s_tensors_are_known(
    tmp_path, name, architecture
):
    (tmp_path / name).write_bytes(b"")
    (found,) = _said(tmp_path / name)
    assert found.architecture == architecture

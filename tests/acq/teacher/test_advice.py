import dataclasses
import re

import numpy as np
import pytest

from acq.layers.float import FloatLayers
from acq.models import MobileNetV2, create_network
from acq.tasks.teacher_rules import RULES, teacher_problems
from acq.teacher.advice import advice
from acq.teacher.loading import load_teacher
from common.config import ConfigDict, rule_problems
from common.errors import UserError
from tests.acq import foreign_state_dicts as theirs
from tests.acq import odd_networks
from tests.acq.teacher_config import teacher_settings

OWN = f"{odd_networks.__name__}:Small"


def _tensors(name, names, classes=10, **options):
    network = create_network(name, FloatLayers(), classes, **options)
    return theirs.tensors_of(theirs.random_variables(network), names)


def _cifar(depth=8, shortcut="zero_pad", **options):
    name = f"{'cifar_' if depth == 50 else ''}resnet{depth}"
    names = theirs.akamaster((depth - 2) // 6)
    return _tensors(name, names, shortcut=shortcut, **options)


def _followed(lines, config):
    """Returns the settings, changed as the lines say."""
    changes = {}
    for key, value in re.findall(r"--config\.teacher\.(\w+)=(\S*[^\s.])", lines):
        kind = type(getattr(config, key))
        changes[key] = "" if value == "''" else kind(value)
    changed = dataclasses.replace(config, **changes)
    as_config = ConfigDict({"teacher": dataclasses.asdict(changed)})
    assert not rule_problems(as_config, RULES) and not teacher_problems(changed)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "config", "said"),
    [
        ({"depth": 14}, {}, "give --config.teacher.depth=14."),
        pytest.param(
            {"depth": 50},
            {"depth": 20},
            "give --config.teacher.depth=50.",
            marks=pytest.mark.slow,
        ),
        ({"classes": 3}, {}, "give --config.teacher.classes=3."),
        ({"shortcut": "projection"}, {}, "give --config.teacher.shortcut=projection."),
        ({}, {"shortcut": "projection"}, "give --config.teacher.shortcut=zero_pad."),
        pytest.param(
            {"depth": 14, "classes": 4, "shortcut": "projection"},
            {"name": "vgg16_bn", "hidden": 9},
            "give --config.teacher.name=resnet14 --config.teacher.classes=4 "
            "--config.teacher.shortcut=projection --config.teacher.hidden=0.",
            marks=pytest.mark.slow,
        ),
        ({}, {"name": OWN, "classes": 3, "image_size": 8}, "name=resnet8 --config"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_what_is_advised_loads(tmp_path, file, config, said, wrapper):
    path = tmp_path / "w.npz"
    tensors = {wrapper + name: tensor for name, tensor in _cifar(**file).items()}
    np.savez(path, **tensors)
    config = teacher_settings(**config, weights=str(path))
    with pytest.raises(UserError) as error:
        load_teacher(config)
    last = str(error.value).splitlines()[-1]
    assert said in last
    load_teacher(_followed(last, config))


def test_our_own_names_are_advised_on_too(tmp_path):
    network = create_network("resnet14", FloatLayers(), 7)
    leaves = theirs.paths_of(theirs.random_variables(network))
    found = advice({"/".join(path): leaf for path, leaf in leaves}, teacher_settings())
    assert found == [
        "They are those of resnet14: give --config.teacher.depth=14 "
        "--config.teacher.classes=7."
    ]


def test_other_channels_are_told_by_the_stem():
    tensors = _cifar(depth=8)
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1]
    (line,) = advice(tensors, teacher_settings())
    assert line.startswith("Its images have 1 channels: give --config.teacher.mean")


def test_classes_of_a_network_of_one_s_own_are_told():
    network = odd_networks.Small(FloatLayers(), 4)
    names = {"stem": "stem", "norm": "norm", "out": "out"}
    tensors = theirs.tensors_of(theirs.random_variables(network), names.items())
    config = teacher_settings(name=OWN, classes=3, image_size=32)
    (line,) = advice(tensors, config)
    assert "give --config.teacher.classes=4." in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "names", "options", "said"),
    [
        ("resnet18", theirs.torchvision_resnet(2, 2), {}, "name=resnet18"),
        (
            "resnet18",
            theirs.pytorchcv_resnet(2, stages=4, convolutions=2),
            {},
            "name=resnet18",
        ),
        ("resnet34", theirs.torchvision_resnet(6, 2), {}, "name=resnet34"),
        ("resnet50", theirs.torchvision_resnet(6, 3), {}, "name=resnet50"),
        (
            "mobilenet_v2",
            theirs.timm_mobilenet(),
            {"width_multiplier": 1.4},
            "name=mobilenet_v2 --config.teacher.classes=5 "
            "--config.teacher.width_multiplier=1.4",
        ),
        (
            "mobilenet_v2",
            theirs.pytorchcv_mobilenet(),
            {"width_multiplier": 0.35},
            "--config.teacher.width_multiplier=0.35",
        ),
        *(
            ("efficientnet_lite0", names, {}, "name=efficientnet_lite0")
            for names in (
                theirs.timm_efficientnet_lite(),
                theirs.listed_efficientnet_lite(),
            )
        ),
        ("vgg16_bn", theirs.timm_vgg(), {"hidden": 32}, "--config.teacher.hidden=32"),
        ("vgg16_bn", theirs.pytorchcv_vgg(), {"hidden": 32}, "name=vgg16_bn"),
    ],
    ids=lambda value: "",
)
def test_networks_of_imagenet_are_recognised(name, names, options, said):
    tensors = _tensors(name, names, classes=5, **options)
    (line,) = advice(tensors, teacher_settings())
    assert line.startswith(f"They are those of {name}: give ")
    assert said in line


def _says_no_network(lines):
    return "No network here has exactly these tensors" in lines[-1] and (
        "--config.teacher.name=package.module:Class" in lines[-1]
    )


def test_networks_that_look_like_one_of_ours_are_not_called_so():
    """Stages with as many blocks as a ResNet, but with other convolutions."""
    one = np.ones((4, 4, 1, 1), np.float32)
    densenet = {
        f"features.denseblock{stage}.denselayer{layer}.conv1.weight": one
        for stage in (1, 2, 3)
        for layer in (1, 2, 3)
    }
    bottlenecks = {
        f"layer{stage}.{block}.conv{i}.weight": one
        for stage in (1, 2, 3)
        for block in (0, 1)
        for i in (1, 2, 3)
    }
    for tensors in (densenet, bottlenecks, {"weight": one}, {}):
        found = advice(tensors, teacher_settings())
        assert len(found) == 1 and _says_no_network(found)


def test_a_network_of_one_class_is_of_no_kind_of_ours():
    tensors = _cifar()
    tensors["linear.weight"] = tensors["linear.weight"][:1]
    assert _says_no_network(advice(tensors, teacher_settings()))


@pytest.mark.slow
def test_pytorchcv_s_first_mobilenet_is_explained():
    network = MobileNetV2(FloatLayers(), 3, width_multiplier=0.1)
    variables = theirs.random_variables(network)
    tensors = theirs.tensors_of(variables, theirs.pytorchcv_mobilenet())
    tensors["features.stage1.unit1.conv1.conv.weight"] = np.ones((8, 8, 1, 1))
    note, last = advice(tensors, teacher_settings())
    assert "mobilenetv2b_w1" in note
    assert _says_no_network([last])

import re

import pytest

from acq.tasks.settings import teacher_settings
from acq.tasks.teacher_rules import RULES, teacher_problems
from common.config import rule_problems
from common.nested import flatten
from tests.acq import odd_networks
from tests.acq.teacher_config import teacher_config

OWN = f"{odd_networks.__name__}:Small"


def test_rules_name_every_key():
    assert set(RULES) == {key for key, _ in flatten(teacher_config())}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "resnet18"},
        {"name": "resnet50", "stride_in_first": True},
        {"name": "resnet50", "stride_in_first": False},
        {"stride_in_first": False},
        {"depth": 56, "shortcut": "projection", "classes": 100},
        {"depth": 110},
        {"name": "resnet110"},
        {"name": "mobilenet_v2", "width_multiplier": 0.5},
        {"name": "vgg16_bn", "hidden": 512},
        {"name": OWN, "classes": 3, "image_size": 8, "mean": (0.5,), "std": (1,)},
        {"sha256": "aB" * 32, "image_size": 64},
    ],
)
def test_what_fits_has_no_problems(changes):
    config = teacher_config(**changes)
    assert rule_problems(config, RULES) == []
    assert teacher_problems(teacher_settings(config)) == []


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("name", "resnet21", "resnet18, .*vgg16_bn, .*'package.module:Class' for your"),
        ("name", "resnet152", "a CIFAR ResNet of 6 n"),
        ("name", "densenet121", r"for your own \(acq/models/README\.md\)"),
        ("name", "module", "or 'package.module:Class'"),
        ("depth", 110.0, r"6 n \+ 2 layers, from 8 to 1202, or 0"),
        ("depth", 21, r"6 n \+ 2 layers"),
        ("depth", 1208, "from 8 to 1202"),
        ("depth", 2, "from 8 to 1202"),
        ("depth", False, "from 8 to 1202"),
        ("stride_in_first", 1, "True or False"),
        ("width_multiplier", -1.0, "at least 0"),
        ("hidden", -1, "at least 0"),
        ("shortcut", "conv", "'zero_pad', 'projection'"),
        ("classes", 1, "at least 2, or 0"),
        ("classes", False, "at least 2, or 0"),
        ("image_size", -1, "at least 8, or 0"),
        ("mean", (0.5, "0.5", 0.5), "for each channel a number"),
        ("std", (0.0,), "for each channel a number above 0"),
        ("weights", "no/such/file", "a path that exists"),
        ("hub_revision", "", "a commit, tag or branch"),
        ("sha256", "12", "64 hexadecimal digits"),
    ],
)
def test_wrong_values_are_named(key, value, accepted):
    config = teacher_config()
    with config.ignore_type():
        config.teacher[key] = value
    (problem,) = rule_problems(config, RULES)
    assert problem.startswith(f"teacher.{key}: got {value!r}, accepted: ")
    assert re.search(accepted, problem), problem


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"std": (0.2,)}, r"teacher.std: got \(0.2,\), accepted: as many .* \(3\)"),
        ({"mean": (), "std": ()}, "teacher.mean: needed"),
        ({"name": "resnet18", "depth": 20}, "accepted: 0 for resnet18"),
        ({"name": OWN, "classes": 3, "image_size": 8, "depth": 20}, "accepted: 0 for"),
        (
            {"name": "resnet18", "shortcut": "zero_pad"},
            "teacher.shortcut: resnet18 has none; leave it ''",
        ),
        (
            {"stride_in_first": True},
            "teacher.stride_in_first: resnet8 has none; leave it False",
        ),
        ({"width_multiplier": 0.5}, "width_multiplier: resnet8 has none; leave it 0.0"),
        ({"hidden": 64}, "teacher.hidden: resnet8 has none; leave it 0"),
        (
            {"mean": (123.675, 116.28, 103.53)},
            r"teacher.mean: got .*divide by 255: \(0.485, 0.456, 0.406\)",
        ),
        (
            {"std": (58.395, 57.12, 57.375)},
            r"teacher.std: got .*divide by 255: \(0.229, 0.224, 0.225\)",
        ),
        ({"name": OWN, "image_size": 8}, "teacher.classes: needed for a network of yo"),
        ({"name": OWN, "classes": 8}, "teacher.image_size: needed for a network of yo"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, said):
    (problem,) = teacher_problems(teacher_settings(teacher_config(**changes)))
    assert problem.startswith("teacher.")
    assert re.search(said, problem), problem


def test_a_scale_of_0_to_255_is_refused_with_all_it_changes():
    """Caffe's: a mean is subtracted of images in [0, 255], and nothing divided by."""
    config = teacher_config(mean=(127.5,) * 3, std=(1.0,) * 3)
    mean, std = teacher_problems(teacher_settings(config))
    assert mean.endswith("divide by 255: (0.5, 0.5, 0.5)")
    assert std.startswith("teacher.std: got (1.0, 1.0, 1.0), accepted: of images")
    assert std.endswith("divide by 255: (0.003922, 0.003922, 0.003922)")
    # Images in [0, 1] as they are.
    assert (
        teacher_problems(
            teacher_settings(teacher_config(mean=(0.0,) * 3, std=(1.0,) * 3))
        )
        == []
    )
    assert (
        teacher_problems(
            teacher_settings(teacher_config(mean=(1.0,) * 3, std=(0.0039,) * 3))
        )
        == []
    )


def test_an_export_tells_what_the_config_leaves_open(tmp_path):
    config = teacher_config(name=OWN, mean=(), std=(), weights=str(tmp_path))
    assert teacher_problems(teacher_settings(config)) == []

import json

import pytest

from acq.teacher.settings import stated_record
from acq.teacher.stated import check_stated
from common.errors import UserError
from tests.acq.teacher_config import teacher_settings

OWN = "tests.acq.own_network:PlainNet"


def _check(folder, name, config, **options):
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "model.safetensors"
    path.write_bytes(b"")
    sizes = {"classes": 3, "image_size": 8} if ":" in name else {}
    check_stated(path, stated_record(teacher_settings(name=name, **sizes)), **options)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("resnet18", "resnet18"),
        ("resnet18", "ResNet-18"),
        ("resnet18", "gluon_resnet18_v1b"),
        ("resnet50", "tv_resnet50"),
        ("resnet50", "resnet50b"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("mobilenet_v2", "MobileNetV2"),
        ("efficientnet_lite0", "tf_efficientnet_lite0"),
        ("efficientnet_lite0", "efficientnet-lite0"),
        ("vgg16_bn", "vgg16_bn"),
        ("vgg16_bn", "bn_vgg16b"),
        ("resnet20", "cifar10_resnet20"),
        ("cifar_resnet50", "resnet50_cifar10"),
        (OWN, "resnetblur18"),
        ("resnet18", ""),
    ],
)
def test_other_names_of_the_same_network_are_accepted(tmp_path, name, architecture):
    _check(tmp_path, name, {"architecture": architecture})


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("resnet18", "resnetblur18"),
        ("resnet18", "resnet18d"),
        ("resnet18", "seresnet18"),
        ("resnet18", "resnet180"),
        ("resnet50", "resnetaa50"),
        ("resnet20", "resnet20v2"),
        ("efficientnet_lite0", "efficientnet_lite0"),
        ("efficientnet_lite0", "tf_efficientnet_lite1"),
        ("vgg16_bn", "vgg16"),
    ],
)
def test_another_network_is_refused(tmp_path, name, architecture):
    with pytest.raises(
        UserError,
        match=rf"config\.json says .* of '{architecture}', but .*name is '{name}'",
    ):
        _check(tmp_path, name, {"architecture": architecture})


def test_the_hub_s_repository_names_its_network(tmp_path):
    _check(tmp_path, "resnet18", {}, hub_repo="timm/resnet18.tv_in1k")
    _check(tmp_path, "resnet18", {}, hub_repo="someone/resnetblur18")
    _check(tmp_path, "efficientnet_lite0", {}, hub_repo="timm/tf_efficientnet_lite0.x")
    with pytest.raises(UserError, match=r"hub_repo=timm/efficientnet_lite0.ra_in1k sa"):
        _check(
            tmp_path,
            "efficientnet_lite0",
            {},
            hub_repo="timm/efficientnet_lite0.ra_in1k",
        )
    with pytest.raises(UserError, match=r"hub_repo=timm/resnetblur18.bt_in1k says"):
        _check(tmp_path, "resnet18", {}, hub_repo="timm/resnetblur18.bt_in1k")


def test_other_images_are_refused(tmp_path):
    """The config's mean is 0.5, its std 0.2."""
    _check(tmp_path, "resnet8", {"mean": [0.5004] * 3, "std": [0.2] * 3})
    _check(tmp_path, "resnet8", {"mean": [0.1]})
    # (RGB - 127) / 128, and the next level of 8 bits.
    _check(tmp_path, "resnet8", {"mean": [127 / 255] * 3})
    with pytest.raises(UserError, match=r"'--config\.teacher\.mean=\(0\.494"):
        _check(tmp_path, "resnet8", {"mean": [126 / 255] * 3})
    with pytest.raises(
        UserError, match=r"'--config\.teacher\.std=\(0\.5,0\.5,0\.5\)', or correct"
    ):
        _check(tmp_path, "resnet8", {"mean": [0.5] * 3, "std": [0.5] * 3})

import json

from acq.classifier import Normalisation, Record
from acq.layers.float import FloatLayers
from acq.models import create_network
from acq.teacher.settings import create_teacher, stated_record
from tests.acq import odd_networks
from tests.acq.teacher_config import teacher_settings

OWN = f"{odd_networks.__name__}:Small"


def test_the_record_of_settings():
    record = stated_record(teacher_settings(depth=20, shortcut="projection"))
    assert record == Record(
        name="resnet20",
        options={"shortcut": "projection"},
        classes=10,
        image_size=32,
        normalisation=Normalisation(mean=(0.5,) * 3, std=(0.2,) * 3),
    )
    # A depth that an ImageNet ResNet has too.
    assert stated_record(teacher_settings(depth=50)).name == "cifar_resnet50"
    mobile = stated_record(teacher_settings(name="mobilenet_v2", width_multiplier=0.5))
    assert mobile.options == {"width_multiplier": 0.5}
    vgg = stated_record(teacher_settings(name="vgg16_bn", hidden=64))
    assert vgg.options == {"hidden": 64}
    assert Record.from_json(json.loads(json.dumps(mobile.to_json()))) == mobile
    for stated, options in ((True, {"stride_in_first": True}), (False, {})):
        config = teacher_settings(name="resnet50", stride_in_first=stated)
        assert stated_record(config).options == options
    assert create_teacher(record) == create_network(
        "resnet20", FloatLayers(), 10, shortcut="projection"
    )
    own = stated_record(teacher_settings(name=OWN, classes=3, image_size=8))
    assert create_teacher(own) == odd_networks.Small(FloatLayers(), 3)
    assert own.image_shape(2) == (2, 8, 8, 3)

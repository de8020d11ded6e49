from ml_collections import config_dict

from acq.tasks.settings import teacher_settings as settings_of
from common.config import ConfigDict


def teacher_settings(**changes):
    """The settings of `teacher_config`."""
    return settings_of(teacher_config(**changes))


def teacher_config(**changes):
    """A config with all keys of `teacher`, a ResNet-8 for 32x32 images."""
    config = ConfigDict()
    config.teacher = ConfigDict(
        {
            "source": "weights",
            "name": "resnet8",
            "depth": 0,
            "shortcut": "",
            "stride_in_first": config_dict.placeholder(bool),
            "width_multiplier": 0.0,
            "hidden": 0,
            "classes": 0,
            "image_size": 0,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.2, 0.2, 0.2),
            "weights": "",
            "weights_key": "",
            "hub_repo": "",
            "hub_file": "",
            "hub_revision": "main",
            "hub_sha256": "",
            "sha256": "",
        }
    )
    config.teacher.update(changes)
    return config

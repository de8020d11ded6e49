"""Recipes with a few changed keys, and a teacher for them."""

from acq.classifier import Classifier, Normalisation, Record
from acq.layers.float import FloatLayers
from configs import (
    acq_digits,
    acq_efficientnet_lite0,
    acq_mbv2,
    acq_r18,
    acq_r20_cifar10,
    acq_r50,
)
from tests.acq.own_network import PlainNet

RECIPES = [
    acq_digits,
    acq_efficientnet_lite0,
    acq_mbv2,
    acq_r18,
    acq_r20_cifar10,
    acq_r50,
]


def changed(variant="default", **values):
    config = acq_r20_cifar10.get_config(variant)
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(
            {key.replace("__", "."): value for key, value in values.items()}
        )
    return config


def teacher(classes=5, image_size=8):
    """Returns a teacher without variables, because nothing here applies it."""
    normalisation = Normalisation(mean=(0.5,) * 3, std=(0.2,) * 3)
    return Classifier(
        network=PlainNet(FloatLayers(), classes, width=4),
        variables={},
        record=Record(
            name="tests.acq.own_network:PlainNet",
            classes=classes,
            image_size=image_size,
            normalisation=normalisation,
        ),
    )

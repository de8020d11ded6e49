"""Configs and records for tests of evaluation data."""

from ml_collections import ConfigDict

from acq.classifier import Classifier, Normalisation, Record
from acq.layers.float import FloatLayers
from tests.acq.odd_networks import Small


def eval_config(cache="", **changes):
    section = {
        "path": "",
        "dataset": "",
        "split": "",
        "classes": "",
        "resize": 0.0,
        "interpolation": "bilinear",
        "limit": 0,
        "batch_size": 8,
    }
    assert set(changes) <= set(section)
    changes = {k: str(v) if k in ("path", "classes") else v for k, v in changes.items()}
    return ConfigDict({"eval": section | changes, "data": {"cache": str(cache)}})


def teacher_of(size=4, channels=3, classes=3):
    """A classifier without variables: only its record is looked at."""
    record = Record(
        name="tests.acq.odd_networks:Small",
        classes=classes,
        image_size=size,
        normalisation=Normalisation(mean=(0.5,) * channels, std=(0.5,) * channels),
    )
    return Classifier(
        network=Small(FloatLayers(), classes), variables={}, record=record
    )

"""Settings and records for tests of evaluation data."""

from acq.classifier import Normalisation, Record
from acq.datasets.settings import EvalDataSettings


def eval_settings(cache="", **changes):
    changes = {k: str(v) if k in ("path", "classes") else v for k, v in changes.items()}
    return EvalDataSettings(batch_size=8, cache=str(cache), **changes)


def record_of(size=4, channels=3, classes=3):
    return Record(
        name="tests.acq.odd_networks:Small",
        classes=classes,
        image_size=size,
        normalisation=Normalisation(mean=(0.5,) * channels, std=(0.5,) * channels),
    )

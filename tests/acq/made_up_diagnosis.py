"""A made-up diagnosis, healthy by default."""

import numpy as np

from acq.diagnosis.diagnosis import Diagnosis, Examples
from acq.diagnosis.sample_measures import Variety

CLASSES, SAMPLES = 5, 100


def make_variety(*, overall=0.98, in_class=(0.9,) * CLASSES, in_pair=0.7):
    return Variety(overall, np.array(in_class, float), in_pair)


def make_diagnosis(*, channels=3, shown_classes=CLASSES, **changes):
    rng = np.random.default_rng(0)
    requested = np.repeat(rng.uniform(-0.6, 0.6, (SAMPLES // 2, 2)), 2, axis=0)
    requested -= np.mean(requested, axis=0)
    shown = np.repeat(np.arange(shown_classes), 4)
    attention = rng.random((len(shown), 4, 4)) ** 4
    given = {
        "finite": 1.0,
        "requested": requested,
        "achieved": 0.9 * requested + 0.05 * rng.normal(size=requested.shape),
        "center_spread": 0.3,
        "requested_spread": 0.35,
        "attention_cosine": 0.9,
        "teacher_entropy": 0.08,
        "statistics": {"eval_squared": 1.0},
        "drawn": np.full(CLASSES, SAMPLES // CLASSES),
        "recognised": np.array([20, 18, 15, 20, 9]),
        "variety": make_variety(),
        "examples": Examples(
            label=shown,
            images=rng.normal(size=(len(shown), 8, 8, channels)),
            attention=attention / attention.sum((1, 2), keepdims=True),
            train_attention=np.full(attention.shape, 1 / 16),
            cosine=rng.uniform(0.8, 1, len(shown)),
            requested=rng.uniform(-0.6, 0.6, (len(shown), 2)),
            achieved=rng.uniform(-0.6, 0.6, (len(shown), 2)),
            recognised=rng.random(len(shown)) < 0.7,
        ),
    }
    return Diagnosis(**(given | changes))

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.teacher import input_statistics
from acq.teacher.input_statistics import (
    FAR,
    measure_input_statistics,
    preparation_warnings,
)
from tests.acq.cases.coloured_teacher import coloured_data, coloured_teacher


@pytest.mark.slow
def test_distances_are_those_of_the_joined_batch():
    teacher, data = coloured_teacher(), coloured_data()
    found = measure_input_statistics(teacher, data)
    assert found.images == 128 and found.correct >= 126  # two whole chunks
    assert set(found.layers) == {"bn0", "bn1", "bn2"}
    images = data.spread(256).images[np.arange(128)]
    x = teacher.record.normalisation.normalise(jnp.asarray(images) / 255.0)
    variables = jax.tree.map(jnp.asarray, teacher.variables)
    _, changed = teacher.network.apply(variables, x, mutable=["bn_inputs"])
    for name, running in teacher.variables["batch_stats"].items():
        var = running["var"] + 1e-5
        batch = jax.tree.map(np.asarray, changed["bn_inputs"][name])
        shift = np.median(np.abs(batch["mean"] - running["mean"]) / np.sqrt(var))
        ratio = np.median(np.abs(np.log((batch["var"] + 1e-5) / var)))
        assert found.layers[name] == pytest.approx(shift + ratio, rel=1e-3)
    assert found.distance < 0.2
    assert found.to_json() == {
        "images": 128,
        "distance": round(found.distance, 4),
        "worst_layers": {k: round(v, 4) for k, v in found.worst().items()},
    }


def test_right_images_are_warned_of_in_nothing():
    teacher, data = coloured_teacher(), coloured_data()
    found = measure_input_statistics(teacher, data)
    assert preparation_warnings(found, teacher, data) == []


def test_far_images_are_told_with_what_would_fit():
    teacher, data = coloured_teacher((0.9,) * 3, (0.9,) * 3), coloured_data()
    found = measure_input_statistics(teacher, data)
    assert found.distance > FAR
    (text,) = preparation_warnings(found, teacher, data)
    # Of those that are tried, CIFAR's are the nearest to the teacher's own.
    assert "bn0" in text and "0.2616), CIFAR's, it would be 0.3" in text


def test_images_that_fit_in_no_way_are_told_with_likely_causes():
    teacher, data = coloured_teacher(), coloured_data()
    noise = np.random.default_rng(0).integers(0, 2, data.images.shape, np.uint8)
    data = dataclasses.replace(data, images=255 * noise)
    found = measure_input_statistics(teacher, data)
    (text,) = preparation_warnings(found, teacher, data)
    assert "Likely causes: config.teacher.mean and std" in text


def test_colours_in_another_order_are_told_where_they_are_far(monkeypatch):
    teacher, data = coloured_teacher(), coloured_data()
    data = dataclasses.replace(data, images=data.images[..., ::-1])
    found = measure_input_statistics(teacher, data)
    monkeypatch.setattr(input_statistics, "FAR", found.distance)
    (text,) = preparation_warnings(found, teacher, data)
    assert "With red and blue swapped it would be 0.0" in text


def test_values_that_are_no_numbers_are_the_farthest():
    teacher, data = coloured_teacher(), coloured_data()
    teacher.variables["params"]["conv0"]["kernel"] = np.full((3, 3, 3, 8), np.nan, "f4")
    assert measure_input_statistics(teacher, data).distance == np.inf


def test_a_few_images_speak_for_nothing():
    teacher = coloured_teacher((0.9,) * 3, (0.9,) * 3)
    data = coloured_data(of_class=1)
    found = measure_input_statistics(teacher, data)
    assert found.images == 12 and found.distance > FAR
    assert preparation_warnings(found, teacher, data) == []

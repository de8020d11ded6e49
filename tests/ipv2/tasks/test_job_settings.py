"""The settings that decide a result: what a record holds of them, and of which keys."""

import pytest

from common.nested import flatten
from configs import ipv2_redcnn
from configs import simulate as simulate_recipe
from ipv2.tasks.job_settings import (
    file_settings,
    purify_settings,
    simulate_settings,
)

# Another value of every key that decides what a task makes of a file.
SIMULATE_CHANGES = {
    "seed": 1,
    "dose": 0.1,
    "input_dose": 0.5,
    "calibrate": True,
    "noise.photons": 1e4,
    "noise.electronic_variance": 5.0,
    "noise.views": 64,
    "noise.filter_name": "ramp",
    "noise.cutoff": 0.5,
    "noise.window": (1.0, 0.5),
    "noise.source_distance_mm": 600.0,
    "noise.bowtie_mm": 100.0,
}
PURIFY_CHANGES = {
    "seed": 1,
    "data.match": "index",
    "purify.version": "v1",
    "purify.variant": "reference",
    "purify.window": (40.0, 400.0),
    "purify.t": 0.5,
    "purify.remove_background": False,
    "purify.align_contour": True,
    "purify.add_noise": "none",
    "purify.remove_noise": "median",
    "purify.volume": True,
    "noise.dose": 0.1,
    "noise.input_dose": 0.5,
    **{key: v for key, v in SIMULATE_CHANGES.items() if key.startswith("noise.")},
}
TASKS = {
    "simulate": (simulate_recipe, simulate_settings, SIMULATE_CHANGES),
    "purify": (ipv2_redcnn, purify_settings, PURIFY_CHANGES),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_record_holds_every_key_that_changes_the_settings(task):
    """Under the config's own names and values, as records of before have them."""
    recipe, settings_of, changes = TASKS[task]
    config = recipe.get_config()
    values = dict(flatten(config))
    held = settings_of(config).by_key()
    assert held == {f"config.{key}": values[key] for key in changes}
    for key, value in changes.items():
        other = recipe.get_config()
        other.update_from_flattened_dict({key: value})
        changed = settings_of(other).by_key()
        assert changed == held | {f"config.{key}": value}, key


@pytest.mark.parametrize("task", TASKS)
def test_no_other_key_changes_the_settings(task):
    recipe, settings_of, _ = TASKS[task]
    before = settings_of(recipe.get_config())
    others = {
        "strict": True,
        "batch_size": 3,
        "evaluate.batch_size": 3,
        "overwrite": True,
        "purify.overwrite": True,
        "model.name": "cnn10",
        "train.batch_size": 12,
        "data.cache": "elsewhere",
    }
    keys = dict(flatten(recipe.get_config()))
    for key in others.keys() & keys.keys():
        config = recipe.get_config()
        config.update_from_flattened_dict({key: others[key]})
        assert settings_of(config) == before, key
    config = recipe.get_config()
    config.data.multiframe, config.data.pixel_mm = True, 0.8
    files = file_settings(config)
    assert settings_of(config).files == files != before.files
    assert settings_of(config).by_key() == before.by_key()

import pytest

from common.errors import UserError
from common.nested import flatten
from configs import ipv2_ffm, ipv2_redcnn, ipv2_zoo, quickstart
from configs import simulate as simulate_recipe
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.rules import RULES
from ipv2.training.denoiser import Regression


@pytest.mark.parametrize(
    "recipe", [ipv2_ffm, ipv2_redcnn, ipv2_zoo, quickstart], ids=lambda r: r.__name__
)
def test_every_variant_is_accepted(recipe):
    check_config(recipe.get_config())
    for variant in recipe.VARIANTS:
        check_config(recipe.get_config(variant))


def test_rules_name_real_keys():
    keys = {key for key, _ in flatten(ipv2_redcnn.get_config())}
    assert set(RULES) <= keys


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("noise.dose", 1.5, "at most 1"),
        ("data.split", (0.5, 0.5, 0.5), "sum to 1"),
        ("data.val_patients", ("p1", "p1"), "a tuple of names, each once"),
        ("data.test_patients", ("",), "a tuple of names, each once"),
        ("data.name_pattern", "lq_.+", "a regular expression with a group"),
        ("data.name_pattern", "(", "a regular expression with a group"),
        ("data.window", (40.0, -1.0), "width above 0"),
        ("data.phantom_patients", (1, 1), "3 whole numbers"),
        ("model.name", "resnet", "redcnn"),
        ("train.patches_per_slice", 3, "multiple of"),
        ("noise.input_dose", 0.01, "at most config.noise.input_dose"),
    ],
)
def test_wrong_values_are_named(key, value, said):
    config = ipv2_redcnn.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match="problem") as error:
        check_config(config)
    assert said in str(error.value)


def test_purify_params_follow_the_variants():
    def params(variant):
        return settings.purify_params(ipv2_redcnn.get_config(variant))

    with pytest.raises(ValueError, match="version"):
        params("none")
    assert params("v1").t == 0.1
    assert not params("no_background").remove_background
    assert params("no_add").add_noise == "none"
    assert params("no_remove").remove_noise == "none"
    assert params("reference").variant == "reference"


def test_a_denoiser_is_made_from_the_config():
    denoiser = settings.denoiser(ipv2_redcnn.get_config())
    assert isinstance(denoiser, Regression)
    assert type(denoiser.model).__name__ == "REDCNN"


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
    "noise.dose": 0.1,
    "noise.input_dose": 0.5,
    **{key: v for key, v in SIMULATE_CHANGES.items() if key.startswith("noise.")},
}
TASKS = {
    "simulate": (simulate_recipe, settings.simulate_settings, SIMULATE_CHANGES),
    "purify": (ipv2_redcnn, settings.purify_settings, PURIFY_CHANGES),
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
    files = settings.file_settings(config)
    assert settings_of(config).files == files != before.files
    assert settings_of(config).by_key() == before.by_key()


def test_keys_that_are_free_to_change_are_keys():
    keys = dict(flatten(ipv2_redcnn.get_config()))
    for free in settings.FREE_TO_CHANGE:
        assert any(f"{key}.".startswith(f"{free}.") for key in keys), free

import pytest

from common.errors import UserError
from common.nested import flatten
from configs import ipv2_ffm, ipv2_redcnn, ipv2_zoo, quickstart
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


def test_keys_that_are_free_to_change_are_keys():
    keys = dict(flatten(ipv2_redcnn.get_config()))
    for free in settings.FREE_TO_CHANGE:
        assert any(f"{key}.".startswith(f"{free}.") for key in keys), free

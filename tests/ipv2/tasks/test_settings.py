import pytest

from common.errors import UserError
from common.nested import flatten
from configs import (
    ipv2_batch_norm,
    ipv2_ffm,
    ipv2_redcnn,
    ipv2_unet,
    ipv2_zoo,
    quickstart,
)
from configs.base_ipv2 import PAIRS
from ipv2.kernels.drawn_scans import ScanRanges
from ipv2.purification.purify import VERSIONS
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.rules import RULES
from ipv2.training.denoiser import Regression


@pytest.mark.parametrize(
    "recipe",
    [ipv2_batch_norm, ipv2_ffm, ipv2_redcnn, ipv2_unet, ipv2_zoo, quickstart],
    ids=lambda r: r.__name__,
)
def test_every_variant_is_accepted(recipe):
    check_config(recipe.get_config())
    for variant in recipe.VARIANTS:
        check_config(recipe.get_config(variant))


@pytest.mark.parametrize("name", ipv2_batch_norm.NETWORKS)
def test_the_smoke_run_of_a_network_keeps_what_it_lacks(name):
    check_config(ipv2_batch_norm.get_config(f"{name},smoke"))


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


def test_every_kind_of_pairs_is_what_the_config_says():
    for name, options in PAIRS.items():
        config = ipv2_redcnn.get_config()
        config.purify.update(options)
        params = settings.pair_params(config)
        version = options["version"]
        kinds = dict.fromkeys(VERSIONS, "purified") | {"registered": "none"}
        assert params.kind == kinds.get(version, version), name
        if params.purification is not None:
            assert params.purification == settings.purify_params(config)


def test_ranges_are_drawn_where_they_are_given():
    config = ipv2_redcnn.get_config("simulated")
    assert settings.pair_params(config).ranges is None
    config.noise.dose_range = (0.01, 0.5)
    config.noise.current_range = (0.4, 2.5)
    config.noise.target_dose = (1.0,)
    params = settings.pair_params(config, 1.0)
    assert params.ranges == ScanRanges(
        dose=(0.01, 0.5), current=(0.4, 2.5), target_dose=1.0
    )
    check_config(config)


@pytest.mark.parametrize(
    ("version", "changes", "words"),
    [
        ("v2", {"noise.dose_range": (0.01, 0.5)}, "noise.dose_range: got"),
        ("v2", {"noise.current_range": (0.5, 2.0)}, "noise.current_range: got"),
        ("simulated", {"noise.current_range": (2.0, 0.5)}, "noise.current_range: got"),
        ("gated", {"noise.target_dose": (0.5,)}, "noise.target_dose: got"),
        ("v2", {"train.shrink": (2,)}, r"train.shrink: got \(2,\)"),
        ("simulated", {"train.shrink": (1, 2)}, "one for each of config.train.shrink"),
        (
            "simulated",
            {"train.shrink": (2, 1), "noise.target_dose": (1.0, 0.0)},
            "numbers that rise",
        ),
        ("simulated", {"noise.dose_range": (0.5, 0.1)}, "noise.dose_range: got"),
        ("simulated", {"noise.cutoff_range": (1.0, 9.0)}, "noise.cutoff_range: got"),
        (
            "simulated",
            {"noise.dose_range": (0.1, 0.5), "noise.source_distance_mm": 600.0},
            "noise.source_distance_mm: given",
        ),
        (
            "simulated",
            {"noise.input_dose": 0.2, "noise.dose_range": (0.1, 0.5)},
            "dose",
        ),
        ("gated", {"noise.dose": 1.0}, "below the input's"),
    ],
)
def test_keys_that_do_not_fit_the_pairs_are_named(version, changes, words):
    config = ipv2_redcnn.get_config(version)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=words):
        check_config(config)

"""What an ACQ config may hold, and the settings that it becomes."""

import dataclasses

import pytest

from acq.quantization.settings import QuantizationSettings
from acq.tasks.check import check, quantization_problems
from acq.tasks.rules import DIGITS_RULES, RULES
from acq.tasks.settings import FREE_TO_CHANGE, task_settings
from acq.tasks.settings import quantization_settings as resolved
from common.config import refuse
from common.errors import UserError
from common.nested import flatten
from configs import acq_digits, acq_r20_cifar10
from configs.base_acq import get_base
from tests.acq.recipe_config import RECIPES, changed


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_variant_is_accepted(recipe):
    for variant in ("default", *recipe.VARIANTS, "published,gdfq,w3a3", "pair,w8a8"):
        assert quantization_problems(recipe.get_config(variant)) == [], variant


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_what_a_recipe_fetches_is_held_to_a_hash(recipe):
    teacher = recipe.get_config().teacher
    assert bool(teacher.hub_repo) == bool(teacher.hub_sha256)


def test_rules_are_of_all_keys_of_the_method():
    keys = {key for key, _ in flatten(acq_r20_cifar10.get_config())}
    assert set(RULES) <= keys
    own = ("quantizer.", "generator.", "student.", "train.", "baselines.")
    assert {key for key in keys if key.startswith(own)} <= set(RULES)


@pytest.mark.parametrize("key", RULES)
def test_every_rule_refuses_with_its_key(key):
    # A height may be below 0.
    for value in ("nonsense", -1) if key != "generator.height" else ("nonsense",):
        found = quantization_problems(changed(**{key: value}))
        assert len(found) == 1
        with pytest.raises(UserError, match=rf"config\.{key}: got .*, accepted: "):
            refuse(found)


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("quantizer.weight_bits", (2, 8), (1, 9, 4.0)),
        ("quantizer.activation_bits", (2, 8), (1, 9)),
        ("quantizer.other_bits", (0, 2, 8), (1, 9)),
        ("quantizer.first_last_bits", (0, 2, 8), (1, 9)),
        ("quantizer.layers", ("", "{}", "{'a*': 2, 'b': 8}"), ("{'a': 1}", "a=8", 8)),
        ("quantizer.budget_mb", (0, 0.05, 3), (-0.1, float("nan"), float("inf"))),
        ("quantizer.decay", (0, 0.5, 1), (1.01,)),
        ("quantizer.observe", ("1 steps", "2.5 epochs"), ("", "0 steps", "4 days")),
        ("generator.width", (2,), (1,)),
        ("generator.power", (1, 2.5), (0.99, float("inf"))),
        ("generator.reach", (0, 1), (1.1,)),
        ("generator.shift", (0, 4), (-1, 0.5)),
        ("generator.sigma", (0.01,), (0, float("nan"))),
        ("generator.warmup", ("", 7, "1 epochs"), ("0 epochs", None, 1.5)),
        ("generator.center_ramp", ("", "1 epochs"), ("soon",)),
        ("generator.path", ("", "configs"), ("no/such/folder",)),
        ("student.temperature", (0.1, 20), (0,)),
        ("student.kl_mean", ("samples", "samples_and_classes"), ("classes",)),
        ("train.duration", (1, "400 epochs"), (0, "")),
        ("train.decay_at", ((), ("1 epochs", "300 steps")), (("2 steps", 1), ("",))),
        ("train.batch_size", (2, 64), (0, 1)),
        ("baselines.run", ((), ("noise", "real")), (("noise", "other"), "noise")),
    ],
)
def test_limits_of_keys(key, accepted, refused):
    for value in accepted:
        assert quantization_problems(changed(**{key: value})) == []
    for value in refused:
        assert quantization_problems(changed(**{key: value}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train.batch_size": 7}, r"train.batch_size: got 7, accepted: an even number"),
        ({"generator.center": "none"}, r"generator.center_weight: got 1.5 with"),
        (
            {
                f"generator.{term}_weight": 0.0
                for term in ("class", "statistics", "center", "pair", "consistency")
            },
            r"generator: the weights class_weight, .*consistency_weight are all 0",
        ),
        ({"train.one_loop": True}, r"train.one_loop: got True with generator.learns"),
        (
            {f"student.{term}_weight": 0.0 for term in ("class", "kl", "hint")},
            r"student.class_weight, kl_weight, hint_weight: all 0",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        refuse(quantization_problems(changed(**values)))


def test_all_problems_are_told_at_once():
    config = changed(**{"quantizer.weight_bits": 1, "generator.power": 0})
    assert len(quantization_problems(config)) == 2


def test_problems_of_all_sections_are_told_at_once():
    config = acq_digits.get_config()
    config.digits.width, config.digits.learning_rate = 0, -1.0
    config.eval.limit, config.quantizer.decay = -1, 2.0
    with pytest.raises(UserError) as error:
        check(config)
    for key in ("digits.width: got 0", "digits.learning_rate", "eval.limit", "decay"):
        assert key in str(error.value)
    assert set(DIGITS_RULES) == {f"digits.{key}" for key in config.digits}


def test_defaults_of_settings_are_those_of_the_recipes_base():
    config = get_base({})
    assert resolved(config) == QuantizationSettings()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_settings_are_frozen_and_equal_for_equal_configs(recipe):
    one, other = (task_settings(recipe.get_config()) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    changed_seed = recipe.get_config()
    changed_seed.seed = 1
    assert task_settings(changed_seed) != one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.quantization.seed = 2


def test_durations_are_in_steps():
    config = changed(**{"train.epoch_steps": 30, "generator.center_ramp": ""})
    for duration, steps in (("7 steps", 7), ("2 epochs", 60), ("0.5 epochs", 15)):
        config.generator.warmup = duration
        assert resolved(config).train.generator_steps == steps
    assert resolved(config).generator.center_ramp == 0


def test_keys_that_are_free_to_change_decide_no_network():
    def decisive(config):
        found = task_settings(config)
        return found.quantization, found.teacher, found.digits, found.generator_path

    config = acq_digits.get_config()
    keys = dict(flatten(config))
    before = decisive(config)
    for key, value in (("task", "x"), ("data.cache", "x"), ("eval.batch_size", 3)):
        assert key in FREE_TO_CHANGE and keys[key] != value
        config.update_from_flattened_dict({key: value})
        assert decisive(config) == before
    assert len(FREE_TO_CHANGE) == 3

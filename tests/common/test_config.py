import pytest
from ml_collections import ConfigDict

from common import config as c
from common.errors import UserError


def _config():
    return ConfigDict(
        {
            "seed": 0,
            "train": {"steps": 10, "lr": 1e-3, "schedule": "cosine"},
            "data": {"names": ("a", "b"), "shuffle": True},
        }
    )


def test_rules_accept_and_refuse_literals():
    for rule, good, bad in [
        (c.one_of("a", 1), ["a", 1], ["b", 2, None]),
        (c.some_of("a", "b"), [("a",), ("b", "a")], [(), ("c",), "a", ["a"]]),
        (c.whole(1, 8), [1, 8], [0, 9, 1.0, True, "1"]),
        (c.number(above=0, at_most=1), [1, 0.5], [0, 1.1, float("nan"), True, "1"]),
        (c.number(at_least=0), [0, 1e9], [-1e-9, float("inf")]),
        (c.boolean(), [True, False], [0, 1, "True"]),
        (c.text(), ["", "x"], [None, 3]),
        (c.existing_path(), ["", "."], ["/no/such/path", 3]),
        (c.existing_path(or_empty=False), ["."], [""]),
    ]:
        assert all(rule.accepts(value) for value in good), rule.words
        assert not any(rule.accepts(value) for value in bad), rule.words


def test_all_problems_are_in_one_message():
    config = _config()
    config.train.steps, config.train.lr = -1, 0.0
    rules = {
        "train.steps": c.whole(1),
        "train.lr": c.number(above=0),
        "train.schedule": c.one_of("cosine", "step"),
    }
    problems = c.rule_problems(config, rules)
    with pytest.raises(UserError) as error:
        c.refuse(problems)
    message = str(error.value)
    assert "2 problems" in message
    assert "config.train.steps: got -1, accepted: a whole number, at least 1" in message
    assert "config.train.lr: got 0.0, accepted: a number above 0" in message
    assert "schedule" not in message


def test_no_problems_pass():
    c.refuse(c.rule_problems(_config(), {"train.steps": c.whole(1)}))


def test_unknown_keys_name_the_closest():
    with pytest.raises(UserError) as error:
        c.refuse_unknown_keys(_config(), ["train.stepz", "lr", "train", "train.steps"])
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 3
    assert "config.train.steps" in lines[0]
    assert "config.train.lr" in lines[1]
    assert "section" in lines[2] and "train.schedule" in lines[2]


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        (7, 7),
        ("7", 7),
        ("7 steps", 7),
        ("1 step", 1),
        ("2 epochs", 25),
        ("0.01 epochs", 1),
    ],
)
def test_to_steps_literals(duration, steps):
    assert c.to_steps(duration, steps_per_epoch=12.5, key="train.duration") == steps


@pytest.mark.parametrize("duration", [0, -3, "3 hours", "many steps", "", "nan steps"])
def test_to_steps_refuses(duration):
    with pytest.raises(UserError, match=r"config\.train\.duration: got"):
        c.to_steps(duration, steps_per_epoch=10, key="train.duration")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.training.ranges import RangeRule, followed_ranges

NAN = float("nan")


def tree(low, high):
    return {"act": {"low": jnp.float32(low), "high": jnp.float32(high)}}


def ends(ranges):
    return float(ranges["act"]["low"]), float(ranges["act"]["high"])


def followed(rule, before, observed, step, trained=None):
    found = followed_ranges(
        rule, before, before if trained is None else trained, observed, jnp.int32(step)
    )
    return ends(found)


@pytest.mark.parametrize(
    ("before", "observed", "after"),
    [
        # 0.75 of the old and 0.25 of the new.
        ((0, 8), (0, 4), (0, 7)),
        ((-4, 8), (-8, 16), (-5, 10)),
        ((-1, 1), (-1, 1), (-1, 1)),
        # Before the first batch there is nothing to average with.
        ((NAN, NAN), (-3, 5), (-3, 5)),
    ],
)
def test_ranges_follow_the_moving_average_of_what_is_observed(before, observed, after):
    rule = RangeRule(observe_steps=3, decay=0.75)
    for step in (0, 2):
        assert followed(rule, tree(*before), tree(*observed), step) == after


def test_ranges_start_at_the_first_batch_and_stay_after_the_last_observed_step():
    rule = RangeRule(observe_steps=3, decay=0.5)
    ranges, seen = tree(NAN, NAN), []
    for step, high in enumerate([8, 4, 2, 100, 1000]):
        observed = tree(-high, high)
        ranges = followed_ranges(rule, ranges, ranges, observed, jnp.int32(step))
        seen.append(ends(ranges)[1])
    # A plain average: 8, (8 + 4) / 2, (6 + 2) / 2, and then no more.
    assert seen == [8, 6, 4, 4, 4]


def test_the_optimiser_moves_ranges_only_when_they_are_no_longer_observed():
    rule = RangeRule(observe_steps=2, decay=0.5)
    before, trained, observed = tree(0, 4), tree(-1, 9), tree(-2, 8)
    found = [followed(rule, before, observed, step, trained) for step in range(4)]
    assert found == [(-1, 6), (-1, 6), (-1, 9), (-1, 9)]


def test_without_observation_ranges_are_the_optimiser_s():
    trained = tree(-1, 9)
    found = followed_ranges(RangeRule(), tree(0, 4), trained, {}, jnp.int32(0))
    assert found is trained


def test_steps_are_data_and_compile_once():
    rule, traced = RangeRule(observe_steps=2), []

    @jax.jit
    def step(ranges, observed, number):
        traced.append(number)
        return followed_ranges(rule, ranges, ranges, observed, number)

    ranges = tree(0, 1)
    for number in range(4):
        ranges = step(ranges, tree(0, 2), jnp.int32(number))
    np.testing.assert_allclose(ends(ranges)[1], 2 - 0.9**2, rtol=1e-6)
    assert len(traced) == 1

import jax
import numpy as np
import pytest

from common.errors import UserError
from common.schedules import create_schedule

# float32 arithmetic inside optax.
CLOSE = {"rtol": 1e-6}


def values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_constant_warms_up_from_a_rate_that_is_not_zero():
    schedule = create_schedule("constant", peak=8.0, total_steps=100, warmup_steps=3)
    expected = [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    np.testing.assert_allclose(values(schedule, [0, 1, 2, 3, 4, 500]), expected)


def test_cosine_starts_at_the_peak_and_ends_at_its_fraction():
    schedule = create_schedule(
        "cosine", peak=1.0, total_steps=110, warmup_steps=10, final_fraction=0.1
    )
    # Half way down: (1 + 0.1) / 2.
    np.testing.assert_allclose(
        values(schedule, [10, 60, 110, 1000]), [1.0, 0.55, 0.1, 0.1], **CLOSE
    )
    falling = values(schedule, range(10, 111))
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_step_changes_at_its_boundaries_exactly(warmup_steps):
    schedule = create_schedule(
        "step",
        peak=1.0,
        total_steps=100,
        warmup_steps=warmup_steps,
        boundaries=(20, 50),
        factor=0.5,
    )
    np.testing.assert_allclose(
        values(schedule, [19, 20, 49, 50, 99]), [1.0, 0.5, 0.5, 0.25, 0.25], **CLOSE
    )


@pytest.mark.parametrize(
    "options",
    [{"name": "constant"}, {"name": "cosine"}, {"name": "step", "boundaries": (6,)}],
)
def test_schedule_is_the_same_jitted(options):
    schedule = create_schedule(peak=0.3, total_steps=10, warmup_steps=2, **options)
    for step in range(11):
        np.testing.assert_allclose(jax.jit(schedule)(step), schedule(step), **CLOSE)


def test_all_problems_are_named_at_once():
    with pytest.raises(UserError) as error:
        create_schedule(
            "linear", peak=0, total_steps=10, warmup_steps=10, final_fraction=2
        )
    for text in (
        "'linear'; accepted: ['constant', 'cosine', 'step']",
        "peak must be > 0, got 0",
        "warmup_steps must be in [0, total_steps=10), got 10",
        "final_fraction must be in [0, 1], got 2",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "step"}, "needs boundaries, got none"),
        ({"name": "step", "boundaries": (5, 5)}, r"must increase .* got \[5, 5\]"),
        ({"name": "step", "boundaries": (2,)}, r"within \(2, 10\), got \[2\]"),
        ({"name": "step", "boundaries": (10,)}, r"within \(2, 10\), got \[10\]"),
        ({"name": "cosine", "boundaries": (5,)}, "belong to 'step', not 'cosine'"),
        ({"name": "step", "boundaries": (5,), "factor": 0}, "factor must be > 0"),
        ({"name": "constant", "total_steps": 0}, "total_steps must be >= 1, got 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create_schedule(**{"peak": 1.0, "total_steps": 10, "warmup_steps": 2} | options)

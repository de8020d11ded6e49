"""Every case has its outcome when a run opens its inputs."""

import collections

import pytest

from tests.acq.cases.all_cases import GROUPS
from tests.acq.cases.judging import judge_inputs


def _is_slow(group, place, case):
    """Marks large networks, and three of four cases that compile their own network."""
    return case.is_large or (group in ("networks", "images") and place % 4 > 0)


CASES = [
    pytest.param(
        judge,
        case,
        id=f"{group}-{case.name}",
        marks=[pytest.mark.slow] if _is_slow(group, place, case) else [],
    )
    for group, (judge, cases) in GROUPS.items()
    for place, case in enumerate(cases)
]


@pytest.mark.slow
@pytest.mark.parametrize(("judge", "case"), CASES)
def test_case_has_its_outcome(tmp_path, judge, case):
    assert not judge(case, tmp_path)


def test_names_of_cases_are_of_one_case_each():
    names = collections.Counter(
        (group, case.name) for group, (_, cases) in GROUPS.items() for case in cases
    )
    assert len(names) > 100 and set(names.values()) == {1}


@pytest.mark.slow
def test_the_judge_sees_what_is_wrong(tmp_path):
    """A case with the other outcome, and with texts that no message contains."""
    (case,) = (one for one in GROUPS["networks"][1] if one.name == "plain")
    other = type(case)(name="x", build=case.build, expected=("no such words",))
    assert judge_inputs(other, tmp_path) == [
        "not refused",
        "does not say 'no such words'",
    ]

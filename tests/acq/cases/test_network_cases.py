"""Every case has its outcome where a run opens what it is given."""

import pytest

from acq.check import check
from acq.quantize import open_inputs
from common.errors import UserError
from tests.acq.cases.command_config import command_config
from tests.acq.cases.network_cases import NETWORK_CASES


@pytest.mark.parametrize("case", NETWORK_CASES, ids=lambda case: case.name)
def test_case_has_its_outcome(tmp_path, monkeypatch, caplog, case):
    monkeypatch.syspath_prepend(tmp_path)
    config = command_config(case.build(tmp_path), monkeypatch)
    check(config)
    with caplog.at_level("INFO"):
        if case.outcome == "refused":
            with pytest.raises(UserError) as error:
                open_inputs(config, tmp_path / "run")
            said = str(error.value)
        else:
            open_inputs(config, tmp_path / "run")
            said = caplog.text
    for words in case.says:
        assert words in said
    for words in case.lacks:
        assert words not in said

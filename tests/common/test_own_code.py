"""Which errors count as the user's, and which line is told."""

import inspect
import sys
from pathlib import Path

import pytest

from common.errors import Interrupted, RunFailed, UserError
from common.own_code import OwnCode, import_own_module, place_of_call
from tests.common import own_code_cases


def _last_line_of(function):
    lines, first = inspect.getsourcelines(function)
    return f"{own_code_cases.__file__}:{first + len(lines) - 1}"


def _code(**options):
    return OwnCode("net:Net fails", "Correct it.", **options)


@pytest.mark.parametrize("error", [KeyError("stage 2"), SystemExit(3)])
def test_an_error_of_the_user_s_code_ends_with_its_line(error):
    with pytest.raises(UserError) as raised, _code():
        own_code_cases.throw(error)
    what = f"{type(error).__name__}: {error}"
    line = _last_line_of(own_code_cases.throw)
    assert str(raised.value) == f"net:Net fails: {line}: {what}. Correct it."


@pytest.mark.parametrize(
    "error", [UserError("a"), RunFailed("b"), Interrupted("c"), KeyboardInterrupt()]
)
def test_our_own_endings_stay_as_they_are(error):
    with pytest.raises(type(error)) as raised, _code():
        own_code_cases.throw(error)
    assert raised.value is error


def test_an_error_of_installed_code_is_the_user_s_only_if_the_package_is(
    tmp_path, monkeypatch
):
    package = tmp_path / "installed_net"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("def fail():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    # Everything is installed, this file too.
    monkeypatch.setattr("common.own_code._NOT_THEIRS", (Path(tmp_path.anchor),))
    fail = import_own_module("installed_net.layers", "config.k").fail
    for module in ("", "__main__", "no_such_package.net"):
        with pytest.raises(ZeroDivisionError), _code(module=module):
            fail()
    with (
        pytest.raises(UserError, match=r"installed_net/layers\.py:2: ZeroDivisionE"),
        _code(module="installed_net.net"),
    ):
        fail()
    del sys.modules["installed_net"], sys.modules["installed_net.layers"]


def test_the_line_that_calls_is_told():
    assert own_code_cases.call(place_of_call) == _last_line_of(own_code_cases.call)

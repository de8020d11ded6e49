"""Imports the user's code by name, and reports its errors with file and line."""

import importlib
import importlib.util
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType, TracebackType

from common.errors import Incomplete, Interrupted, RunFailed, UserError

_ROOT = Path(__file__).parents[1]
_NOT_THEIRS = (
    *(Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")),
    *(Path(sysconfig.get_path(key)) for key in ("purelib", "platlib")),
    *(_ROOT / package for package in ("acq", "common", "ipv2")),
)
_OURS = (UserError, RunFailed, Interrupted, Incomplete)


class OwnCode:
    """Turns errors of the user's code into a `UserError`.

    It catches every `Exception`, because the user's code may raise any, and an exit. An
    error that passed no line of the user's code is raised unchanged.
    """

    def __init__(self, does: str, otherwise: str, *, module: str = "") -> None:
        """Does nothing until it is entered.

        Args:
          does: what fails if the code raises, such as 'net:Net cannot be imported'.
          otherwise: what to do then, a sentence.
          module: import path of the code. Its package is the user's code even where it
            is installed.
        """
        self._does, self._otherwise, self._module = does, otherwise, module

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises UserError instead of an error of the user's code."""
        if not isinstance(error, Exception | SystemExit) or isinstance(error, _OURS):
            return
        if (place := place_of(error, self._module)) is None:
            return
        raise UserError(
            f"{self._does}: {place}: {first_line(error)}. {self._otherwise}"
        ) from error


def import_own_module(name: str, key: str) -> ModuleType:
    """Returns the user's module of that name.

    Args:
      name: such as 'package.module'.
      key: the config key that holds it, for messages.

    Raises:
      UserError: there is no such module, or its code raises.
    """
    try:
        does = f"{key}: {name} cannot be imported"
        with OwnCode(does, "Correct that file.", module=name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{key}: no module {error.name!r} can be imported. Its folder must be on "
            "PYTHONPATH."
        ) from error


def place_of(error: BaseException, module: str = "") -> str | None:
    """Returns 'file:line' of the user's code that raised; None if it did not.

    That is the innermost line that is neither ours nor of an installed package. For a
    syntax error it is the line with the error.

    Args:
      error: what was raised.
      module: import path of the user's code, as in `OwnCode`.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    return _innermost(traceback.extract_tb(error.__traceback__), module)


def place_of_call(module: str = "") -> str | None:
    """Returns 'file:line' of the user's code that calls; None if none does.

    Args:
      module: import path of the user's code, as in `OwnCode`.
    """
    return _innermost(traceback.extract_stack(), module)


def first_line(error: BaseException) -> str:
    """Returns the error's type and the first line of its message."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = message.strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _innermost(frames: traceback.StackSummary, module: str) -> str | None:
    package = _package_of(module)
    theirs = [frame for frame in frames if _is_theirs(frame.filename, package)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else None


def _package_of(module: str) -> Path | None:
    """Returns the folder or the file of the package with a module."""
    top = module.partition(".")[0]
    # A script that runs as __main__ has no spec, and is not installed.
    spec = importlib.util.find_spec(top) if top not in ("", "__main__") else None
    if spec is None or not spec.has_location:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0] if folders else str(spec.origin))


def _is_theirs(name: str, package: Path | None) -> bool:
    path = Path(name)
    if package is not None and path.is_relative_to(package):
        return True
    return path.is_file() and not any(map(path.is_relative_to, _NOT_THEIRS))

"""Imports the user's code by name, and reports its errors with file and line."""

import importlib
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType, TracebackType

from common.errors import UserError

_ROOT = Path(__file__).parents[1]
_NOT_THEIRS = (
    *(Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")),
    *(Path(sysconfig.get_path(key)) for key in ("purelib", "platlib")),
    *(_ROOT / package for package in ("acq", "common", "ipv2")),
)


class OwnCode:
    """Turns errors of the user's code into a `UserError`.

    It catches every `Exception`, because the user's code may raise any. An error that
    passed no line of the user's code is raised unchanged.
    """

    def __init__(self, does: str, otherwise: str) -> None:
        """Does nothing until it is entered.

        Args:
          does: what fails if the code raises, such as 'net:Net cannot be imported'.
          otherwise: what to do then, a sentence.
        """
        self._does, self._otherwise = does, otherwise

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises UserError instead of an error of the user's code."""
        if not isinstance(error, Exception) or isinstance(error, UserError):
            return
        if (place := place_of(error)) is None:
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
        with OwnCode(f"{key}: {name} cannot be imported", "Correct that file."):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{key}: no module {error.name!r} can be imported. Its folder must be on "
            "PYTHONPATH."
        ) from error


def place_of(error: Exception) -> str | None:
    """Returns 'file:line' of the user's code that raised; None if it did not.

    That is the innermost line that is neither ours nor of an installed package. For a
    syntax error it is the line with the error.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _is_theirs(frame.filename)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else None


def first_line(error: Exception) -> str:
    """Returns the error's type and the first line of its message."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = message.strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _is_theirs(name: str) -> bool:
    path = Path(name)
    return path.is_file() and not any(map(path.is_relative_to, _NOT_THEIRS))

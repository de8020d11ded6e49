"""Code of the user's own: found by its name, and its errors told with file and line."""

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
    """Runs code that is not ours: what it raises becomes a `UserError`.

    Whatever it is: code of others may raise anything. What passed no line of theirs is
    raised as it is.
    """

    def __init__(self, does: str, otherwise: str) -> None:
        """Does nothing until it is entered.

        Args:
          does: what cannot be done if it raises, such as 'net:Net cannot be imported'.
          otherwise: what to do then, a sentence.
        """
        self._does, self._otherwise = does, otherwise

    def __enter__(self) -> None:
        """Watches from here on."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises UserError in place of an error of their code."""
        if not isinstance(error, Exception) or isinstance(error, UserError):
            return
        if (place := place_of(error)) is None:
            return
        raise UserError(
            f"{self._does}: {place}: {first_line(error)}. {self._otherwise}"
        ) from error


def import_own_module(name: str, key: str) -> ModuleType:
    """The module of that name.

    Args:
      name: such as 'package.module'.
      key: that the user gave it with, for messages.

    Raises:
      UserError: there is none, or its code raises.
    """
    try:
        with OwnCode(f"{key}: {name} cannot be imported", "Mend that file."):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{key}: no module {error.name!r} can be imported. Its folder must be on "
            "PYTHONPATH."
        ) from error


def place_of(error: Exception) -> str | None:
    """'file:line' of their code that raised; None if none did.

    The innermost line that is neither ours nor of an installed package; of a syntax
    error the line that cannot be read.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _is_theirs(frame.filename)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else None


def first_line(error: Exception) -> str:
    """The error's kind and the first line of what it says."""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    said = said.strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _is_theirs(name: str) -> bool:
    path = Path(name)
    return path.is_file() and not any(map(path.is_relative_to, _NOT_THEIRS))

"""Weights fetched from the Hugging Face hub, and the hash that names them.

A fetched file is cached by `huggingface_hub` (HF_HOME, HF_HUB_CACHE) and not fetched
again. A config pins it with a revision and its SHA-256. A hash that is left empty
accepts any file; what it is, is logged and kept in the teacher's record.
"""

import contextlib
import dataclasses
import hashlib
import logging as std_logging
import re
from collections.abc import Generator
from pathlib import Path

import huggingface_hub
from absl import logging
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, XetDownloadError

from common.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file on the hub.

    Attributes:
      repo: 'timm/resnet18.tv_in1k', say.
      file: Its path there.
      revision: Commit, tag or branch.
    """

    repo: str
    file: str
    revision: str = "main"

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"https://huggingface.co/{self.repo}/resolve/{self.revision}/{self.file}"


def fetch(place: HubFile) -> Path:
    """Returns where the file is on this machine, after fetching it if it was not.

    Raises:
      UserError: It is not cached and cannot be fetched; says where to get it.
    """
    logging.info("weights: %s of %s, from the hub or its cache", place.file, place.repo)
    # Before its lines are caught: this imports what sets its logging up.
    download = huggingface_hub.hf_hub_download
    try:
        with _each_line_once():
            found = download(place.repo, place.file, revision=place.revision)
    # OSError: no network, no such repository or revision. ValueError: no such name can
    # be. RuntimeError: what was fetched is not what was announced.
    except (
        *(OSError, ValueError, RuntimeError),
        *(EntryNotFoundError, XetDownloadError),
    ) as error:
        # Behind "please check your connection" is what went wrong.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).strip().partition("\n")[0][:200].rstrip(".")
        raise UserError(
            f"no weights: {place.file} of {place.repo}, revision {place.revision}, is "
            f"neither in the hub's cache ({constants.HF_HUB_CACHE}) nor can be "
            f"fetched: {reason or type(cause).__name__}. Where there is a network, "
            f"download {place.url}, copy it to this machine, into any folder, and give "
            "it: --config.teacher.weights=FOLDER/"
            f"{place.file.rpartition('/')[2]}"
        ) from error
    return Path(found)


@contextlib.contextmanager
def _each_line_once() -> Generator[None]:
    """Shows each of the hub library's lines once, not at every try and twice."""
    library = std_logging.getLogger("huggingface_hub")
    handlers, propagates = library.handlers, library.propagate
    once: list[std_logging.Handler] = [_Once()]
    library.handlers, library.propagate = once, False
    try:
        yield
    finally:
        library.handlers, library.propagate = handlers, propagates


class _Once(std_logging.Handler):
    """Hands on lines that were not there before; which try it is does not count."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def emit(self, record: std_logging.LogRecord) -> None:
        text = record.getMessage()
        kind = re.sub(r"^Retrying in .*", "Retrying", text)
        if kind not in self._seen:
            self._seen.add(kind)
            logging.warning("the hub: %s", text)


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file of weights.

    Raises:
      UserError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}). Give another file: "
            "--config.teacher.weights=FILE."
        ) from error


def hash_weights(path: Path, *, pinned: str, key: str = "teacher.sha256") -> str:
    """Returns the SHA-256 of a file of weights, held to what is pinned.

    Args:
      path: Of the file.
      pinned: What it must be; '' for whatever it is, which is then logged.
      key: Of the config, that says so.

    Raises:
      UserError: It is not what is pinned, or cannot be read.
    """
    found = hash_file(path)
    if not pinned:
        logging.info("weights %s: SHA-256 %s; --config.%s pins it", path, found, key)
    elif found != pinned.lower():
        raise UserError(
            f"{path}: its SHA-256 is {found}, but config.{key} says {pinned}. It is "
            "damaged or another file: fetch it again, or give the hash of the file you "
            f"want, or --config.{key}='' to accept any."
        )
    return found

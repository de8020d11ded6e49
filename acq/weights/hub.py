"""Downloads weights from the Hugging Face hub, and checks the hash of weights.

`huggingface_hub` caches a downloaded file (HF_HOME, HF_HUB_CACHE). A config pins it
with a revision and its SHA-256. An empty hash accepts any file. The hash of the file is
then logged and kept in the teacher's record.
"""

import contextlib
import dataclasses
import hashlib
import logging as std_logging
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
      repo: Such as 'timm/resnet18.tv_in1k'.
      file: Its path in the repository.
      revision: Commit, tag or branch.
      sha256: Of the file, for messages; '' if unknown.
      size: About how many bytes it has, for messages; 0 if unknown.
    """

    repo: str
    file: str
    revision: str = "main"
    sha256: str = ""
    size: int = 0

    def __str__(self) -> str:
        """Returns what is known of the file, as text."""
        facts = [
            f"revision {self.revision}",
            *([f"about {self.size / 1e6:.0f} MB"] if self.size else []),
            f"SHA-256 {self.sha256 or 'not known here'}",
        ]
        return f"{self.file} of {self.repo} ({', '.join(facts)})"

    @property
    def url(self) -> str:
        """Address for a browser."""
        return f"https://huggingface.co/{self.repo}/resolve/{self.revision}/{self.file}"


def fetch(wanted: HubFile) -> Path:
    """Returns the path of the file on this machine; downloads it if necessary.

    Raises:
      UserError: It is not cached and cannot be downloaded; the message says where to
        get it.
    """
    logging.info(
        "weights: %s of %s, from the hub or its cache", wanted.file, wanted.repo
    )
    # Before its log lines are caught: this import sets up its logging.
    download = huggingface_hub.hf_hub_download
    try:
        with _tries_in_one_line():
            found = download(wanted.repo, wanted.file, revision=wanted.revision)
    # OSError: no network, no such repository or revision. ValueError: an invalid name.
    # RuntimeError: the downloaded file is not the announced one.
    except (
        *(OSError, ValueError, RuntimeError),
        *(EntryNotFoundError, XetDownloadError),
    ) as error:
        # "Please check your connection" hides the cause.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).strip().partition("\n")[0][:200].rstrip(".")
        raise UserError(
            f"no weights: {wanted} is not in the hub's cache "
            f"({constants.HF_HUB_CACHE}) and cannot be fetched: "
            f"{reason or type(cause).__name__}. On a machine with a network, download "
            f"{wanted.url}, copy it to this machine, into any folder, and give it with "
            "the same command: --config.teacher.weights=FOLDER/"
            f"{wanted.file.rpartition('/')[2]}"
        ) from error
    return Path(found)


@contextlib.contextmanager
def _tries_in_one_line() -> Generator[None]:
    """Logs one line for all tries of the hub's library, which logs four for each."""
    library = std_logging.getLogger("huggingface_hub")
    handlers, propagates = library.handlers, library.propagate
    short: list[std_logging.Handler] = [_Short()]
    library.handlers, library.propagate = short, False
    try:
        yield
    finally:
        library.handlers, library.propagate = handlers, propagates


class _Short(std_logging.Handler):
    """Logs each new line; the first failed try stands for all, without its cause.

    The error says the cause, if all tries fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def emit(self, record: std_logging.LogRecord) -> None:
        text = record.getMessage()
        if " thrown while requesting " in text:
            return
        if text.startswith("Retrying in "):
            text = "no answer; trying again, for half a minute or more"
        if text not in self._seen:
            self._seen.add(text)
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
    """Returns the SHA-256 of a file of weights, after a comparison with the pinned one.

    Args:
      path: Of the file.
      pinned: The expected hash; '' accepts and logs any.
      key: The config key that holds `pinned`.

    Raises:
      UserError: The hash differs, or the file cannot be read.
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

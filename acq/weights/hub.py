"""Weights fetched from the Hugging Face hub, and the hash that names them.

A fetched file is cached by `huggingface_hub` (HF_HOME, HF_HUB_CACHE) and not fetched
again. A config pins it with a revision and its SHA-256. A hash that is left empty
accepts any file; what it is, is logged and kept in the teacher's record.
"""

import dataclasses
import hashlib
from pathlib import Path

import huggingface_hub
from absl import logging
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
    try:
        found = huggingface_hub.hf_hub_download(
            place.repo, place.file, revision=place.revision
        )
    # OSError: no network, no such repository or revision. ValueError: no such name can
    # be. RuntimeError: what was fetched is not what was announced.
    except (
        *(OSError, ValueError, RuntimeError),
        *(EntryNotFoundError, XetDownloadError),
    ) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"{place.file} of {place.repo} is neither cached nor can be fetched: "
            f"{reason or type(error).__name__}. Download {place.url} where there is a "
            "network, and give the file: --config.teacher.weights=FILE."
        ) from error
    return Path(found)


def hash_weights(path: Path, *, pinned: str, key: str = "teacher.sha256") -> str:
    """Returns the SHA-256 of a file of weights.

    Args:
      path: Of the file.
      pinned: What it must be; '' for whatever it is, which is then logged.
      key: Of the config, that says so.

    Raises:
      UserError: It is not what is pinned, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}). Give another file: "
            "--config.teacher.weights=FILE."
        ) from error
    if not pinned:
        logging.info("weights %s: SHA-256 %s; --config.%s pins it", path, found, key)
    elif found != pinned.lower():
        raise UserError(
            f"{path}: its SHA-256 is {found}, but config.{key} says {pinned}. It is "
            "damaged or another file: fetch it again, or give the hash of the file you "
            f"want, or --config.{key}='' to accept any."
        )
    return found

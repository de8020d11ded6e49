"""The software's version, as outputs state it.

`VERSION` is compared: a result of another version is refused or made again. So people
raise it by hand, with a change that changes numbers or files. If every commit raised
it, all results would become stale. `COMMIT` is only stated beside it, never compared.
"""

import re
import subprocess
from importlib import metadata
from pathlib import Path

VERSION = "0.1.0"
PACKAGE = "ipv2-acq"
_DIGITS = 12  # of a commit's hash


def commit_of(root: Path) -> str | None:
    """Returns the commit of the source in a folder; None if it is unknown.

    For a checkout git gives it, with `-dirty` if tracked files were changed. For an
    installed package it is part of the package's version.

    Args:
      root: the folder that holds `common`.
    """
    # Without .git, git would answer for a project around it, such as that of a .venv.
    if not (root / ".git").exists():
        return _built_from(root)
    # Without a lock, so that commands that start together do not block each other.
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always"]
    command += ["--dirty", "--exclude=*", f"--abbrev={_DIGITS}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, a checkout of another owner, or no commit yet
    return found.stdout.strip()


def _built_from(root: Path) -> str | None:
    """Returns the commit in the version of the package installed in a folder."""
    for found in metadata.distributions(name=PACKAGE, path=[str(root)]):
        if match := re.search(r"\+g([0-9a-f]+)", found.version):
            return match[1]
    return None


def stated(version: str, commit: str | None) -> str:
    """Returns the text of a version and its commit."""
    return version if commit is None else f"{version}, commit {commit}"


# Read once, when the source is loaded, so that a long run states its first commit.
COMMIT = commit_of(Path(__file__).resolve().parents[1])
STATED = stated(VERSION, COMMIT)

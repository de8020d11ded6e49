"""The software's version, as outputs state it.

`VERSION` is compared: a result of another version is refused or made anew. So it is
raised by hand, with a change that changes numbers or files; every commit would make
all results stale. `COMMIT` is only stated beside it, and compared with nothing.
"""

import re
import subprocess
from importlib import metadata
from pathlib import Path

VERSION = "0.1.0"
PACKAGE = "ipv2-acq"
_DIGITS = 12  # of a commit's hash


def commit_of(root: Path) -> str | None:
    """Returns the commit that the source in a folder is of; None if nothing tells.

    A checkout's is asked of git, with `-dirty` if tracked files were changed; that of
    an installed package is part of the version that it was built with.

    Args:
      root: the folder that holds `common`.
    """
    # No .git: git would answer for a project around it, such as that of a .venv.
    if not (root / ".git").exists():
        return _built_from(root)
    # Without a lock, so that commands that start together don't get in the way.
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always"]
    command += ["--dirty", "--exclude=*", f"--abbrev={_DIGITS}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, a checkout of another owner, or no commit yet
    return found.stdout.strip()


def _built_from(root: Path) -> str | None:
    """The commit in the version of the package installed in a folder."""
    for found in metadata.distributions(name=PACKAGE, path=[str(root)]):
        if match := re.search(r"\+g([0-9a-f]+)", found.version):
            return match[1]
    return None


def stated(version: str, commit: str | None) -> str:
    """Returns a version and its commit, for people and headers."""
    return version if commit is None else f"{version}, commit {commit}"


# Once, when the source is loaded: a run of days states what it was started from.
COMMIT = commit_of(Path(__file__).resolve().parents[1])
STATED = stated(VERSION, COMMIT)

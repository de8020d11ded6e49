"""Which teacher a run began with: `workdir/teacher.json`, and that it has no other.

The config holds the path of the weights; the file there may be replaced.
"""

import json
from pathlib import Path

from acq.classifier import Record
from acq.teacher.settings import TeacherSettings
from acq.weights.hub import hash_file
from common.checkpoint import load_manifest
from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.workdir import anything_computed

NAME = "teacher.json"


def hold_teacher(record: Record, workdir: Path) -> None:
    """Writes `workdir/teacher.json`, or checks that the run there has this teacher.

    It holds `name`, `source` and `sha256` of the record. Called once the run's config
    is held; of several processes, by all.

    Args:
      record: Of the teacher that this command opened.
      workdir: Of the run.

    Raises:
      UserError: The folder holds results of another teacher.
    """
    path = workdir / NAME
    if path.exists() and anything_computed(workdir):
        _refuse_other(record.sha256, record.source, workdir)
    elif is_first_process():
        now = {key: getattr(record, key) for key in ("name", "source", "sha256")}
        write_atomically(path, json.dumps(now, indent=2) + "\n")


def refuse_replaced_weights(settings: TeacherSettings, workdir: Path) -> None:
    """Raises if a complete run's weights are not those that its path now holds.

    Weights of the hub are not fetched to find out.

    Args:
      settings: Of the run's teacher.
      workdir: Of the run.

    Raises:
      UserError: They are others.
    """
    given = settings.weights
    if settings.source != "weights" or not given:
        return
    if (workdir / NAME).exists() and anything_computed(workdir):
        weights = Path(given)
        is_export = weights.is_dir()
        found = load_manifest(weights)["sha256"] if is_export else hash_file(weights)
        _refuse_other(found, given, workdir)


def _refuse_other(sha256: str, source: str, workdir: Path) -> None:
    run = _read(workdir / NAME)
    if run["sha256"] != sha256:
        raise UserError(
            f"{workdir} holds a run with another teacher: its weights, of "
            f"{run['source']}, had the SHA-256 {run['sha256'][:16]}..., those of "
            f"{source} now have {sha256[:16]}... Give the weights that it began with, "
            "or another --workdir."
        )


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    keys = ("name", "source", "sha256")
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), str) for key in keys
    ):
        raise UserError(
            f"{path}: damaged, or not the teacher of a run of this software. Give "
            "another --workdir."
        )
    return found

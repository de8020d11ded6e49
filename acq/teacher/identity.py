"""Records a run's teacher in `workdir/teacher.json`, and refuses another one.

The config holds only the path of the weights, and the file there may be replaced.
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
    """Writes `workdir/teacher.json`, or checks that the run has this teacher.

    The file holds `name`, `source` and `sha256` of the record. All processes call this,
    after the run's config is written or checked.

    Args:
      record: Of the teacher that this command opened.
      workdir: Of the run.

    Raises:
      UserError: The workdir holds results of another teacher.
    """
    path = workdir / NAME
    if path.exists() and anything_computed(workdir):
        _refuse_other(record.sha256, record.source, workdir)
    elif is_first_process():
        content = {key: getattr(record, key) for key in ("name", "source", "sha256")}
        write_atomically(path, json.dumps(content, indent=2) + "\n")


def refuse_replaced_weights(settings: TeacherSettings, workdir: Path) -> None:
    """Checks that a complete run's file of weights was not replaced.

    It downloads no weights from the hub for this check.

    Args:
      settings: Of the run's teacher.
      workdir: Of the run.

    Raises:
      UserError: The path now holds other weights.
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
            f"{source} now have {sha256[:16]}... Give the first weights again, or "
            "another --workdir."
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

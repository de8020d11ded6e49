"""The data of a run: records them in `workdir/data.json`, and refuses others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config import ConfigDict
from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.version import VERSION
from common.workdir import anything_computed
from ipv2.tasks.sources import Sources, fingerprints, open_sources

NAME = "data.json"
_ANY = "*"
# The type of each value, of a list that of its members; `_ANY` is a key of any name.
_FORM = {
    "software_version": str,
    "unavailable": [str],
    "datasets": {
        _ANY: {
            "fingerprint": str,
            "patients": {_ANY: [str]},
            "records": {"train": int, "val": int, "test": int},
            "sha256": {_ANY: str},
        }
    },
}


def data_record(sources: Sources) -> dict[str, Any]:
    """Returns the content of `data.json`.

    It has `software_version`; `unavailable`, the embedded datasets that could not be
    fetched; and `datasets`, by name: `fingerprint` (of options and of the files' names,
    sizes and times), `patients` and `records` by split, `sha256` of the built records.
    """
    return {
        "software_version": VERSION,
        "unavailable": list(sources.unavailable),
        "datasets": sources.data,
    }


def hold_data(sources: Sources, workdir: Path) -> None:
    """Writes `workdir/data.json`, or checks that the run there saw these data.

    Raises:
      UserError: the folder holds results of other data or of another version.
    """
    now, path = data_record(sources), workdir / NAME
    if path.exists():
        run = _read(path)
        if anything_computed(workdir):
            _refuse(run, now, workdir)
    if is_first_process():
        write_atomically(path, json.dumps(now, indent=2) + "\n")


def refuse_other_data(config: ConfigDict, workdir: Path) -> None:
    """Raises if a complete run's data are not those that the config now gives.

    Where the files are untouched, nothing is built or read.

    Args:
      config: the run's config, checked.
      workdir: the folder of the complete run.

    Raises:
      UserError: the data or the software version are others.
    """
    path = workdir / NAME
    if not path.exists():
        return
    run = _read(path)
    before = {name: one["fingerprint"] for name, one in run["datasets"].items()}
    now = {
        name: fingerprint
        for name, fingerprint in fingerprints(config).items()
        if name not in run["unavailable"]
    }
    if before != now or run["software_version"] != VERSION:
        hold_data(open_sources(config), workdir)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not _fits(found, _FORM):
        raise UserError(
            f"{path}: damaged, or not the data of a run of this software. Give another "
            "--workdir."
        )
    return found


def _fits(found: Any, form: Any) -> bool:
    """Whether a value has a form, see `_FORM`."""
    if isinstance(form, type):
        return type(found) is form
    if isinstance(form, list):
        return isinstance(found, list) and all(_fits(one, form[0]) for one in found)
    if not isinstance(found, dict):
        return False
    if list(form) == [_ANY]:
        return all(_fits(one, form[_ANY]) for one in found.values())
    return all(key in found and _fits(found[key], form[key]) for key in form)


def _refuse(run: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    if lines := differences(run, now):
        raise UserError(
            f"{workdir} holds a run on other data:\n  "
            + "\n  ".join(lines)
            + "\nGive the data and the version it began with, or another --workdir."
        )


def differences(run: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a line for each difference of two records; [] for the same data.

    Args:
      run: the record of the run.
      now: the record of this command.
    """
    lines = []
    if run["software_version"] != now["software_version"]:
        lines.append(
            f"software version: the run has {run['software_version']}, this is "
            f"{now['software_version']}"
        )
    theirs, ours = run["datasets"], now["datasets"]
    if set(theirs) != set(ours):
        lines.append(
            f"datasets: the run has {', '.join(theirs)}, this command {', '.join(ours)}"
        )
    for name in sorted(set(theirs) & set(ours)):
        lines += [f"{name}: {line}" for line in _within(theirs[name], ours[name])]
    return lines


def _within(run: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences of one dataset."""
    lines = []
    before, after = _splits_of(run["patients"]), _splits_of(now["patients"])
    for patient in sorted(before.keys() | after.keys()):
        was, is_ = before.get(patient), after.get(patient)
        if was is None:
            lines.append(f"patient {patient!r} is new, in {is_}")
        elif is_ is None:
            lines.append(f"patient {patient!r} of {was} is gone")
        elif was != is_:
            lines.append(f"patient {patient!r} moved from {was} to {is_}")
    for split, count in run["records"].items():
        if count != (here := now["records"][split]):
            lines.append(f"{split}: the run has {count} slices, this command {here}")
    if not lines and run["sha256"] != now["sha256"]:
        lines.append(
            "the same patients, but other values: SHA-256 "
            f"{_short(run['sha256'])} and now {_short(now['sha256'])}"
        )
    return lines


def _splits_of(patients: Mapping[str, list[str]]) -> dict[str, str]:
    """The splits that hold a patient's slices, by patient."""
    result: dict[str, list[str]] = {}
    for split, names in patients.items():
        for name in names:
            result.setdefault(name, []).append(split)
    return {name: " and ".join(splits) for name, splits in result.items()}


def _short(hashes: Mapping[str, str]) -> str:
    return ", ".join(value[:12] for value in hashes.values())

"""Results as files for readers and for programs: tables, and a CSV of all slices.

`SCHEMA_VERSION` is that of the keys of `results.json` (docs/evaluation.md). It
rises when a key changes its name or its meaning; a new key does not raise it.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import write_atomically

SCHEMA_VERSION = 2
"""Version 1, of results that state none, had means over all data sets together."""

# What names a slice, in the entries of `slices`.
IDENTITY = ("dataset", "patient", "name", "slice")


def write_files(
    workdir: Path,
    stem: str,
    text: str,
    runs: Mapping[tuple[str, ...], Mapping[str, Any]],
    of_runs: Sequence[str] = (),
) -> None:
    """Writes `stem`.txt, all tables, and `stem`.csv, all slices.

    Args:
      workdir: the folder.
      stem: name of the files.
      text: the tables.
      runs: results by the names of their run; {(): results} for one.
      of_runs: the columns of these names.
    """
    write_atomically(workdir / f"{stem}.txt", text + "\n")
    write_atomically(workdir / f"{stem}.csv", slices_csv(runs, of_runs))


def slices_csv(
    runs: Mapping[tuple[str, ...], Mapping[str, Any]], of_runs: Sequence[str] = ()
) -> str:
    """Returns a CSV with one row for each image of each slice.

    Columns: `of_runs`; data set, patient, name, slice; image; label, which the numbers
    are against; the numbers, named by their keys, 'psnr_db.lung'; and for each window
    its ends, 'window_hu.lung' -1350..150. A cell is empty where a slice has no number.
    """
    rows = [
        dict(zip(of_runs, names, strict=True)) | row
        for names, results in runs.items()
        for row in _rows(results)
    ]
    columns = dict.fromkeys(key for row in rows for key in row)
    # Rows differ: the input has no numbers of what was removed.
    last = [name for name in columns if name.startswith("window_hu.")]
    order = [name for name in columns if name not in last] + last
    text = io.StringIO()
    writer = csv.DictWriter(text, order, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    windows = {
        f"window_hu.{name}": f"{one['low_hu']:g}..{one['high_hu']:g}"
        for name, one in results.get("windows", {}).items()
    }
    for entry in results["slices"]:
        place = {key: entry[key] for key in IDENTITY}
        label = results["datasets"][entry["dataset"]]["label"]
        for image in images_of(entry):
            numbers = {".".join(path): value for path, value in leaves(entry[image])}
            yield place | {"image": image, "label": label} | numbers | windows


def images_of(entry: Mapping[str, Any]) -> list[str]:
    """Returns the images of an entry of `slices`."""
    return [key for key in entry if key not in IDENTITY]


def leaves(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Yields the path of keys and the value of every leaf of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value

"""Finds the patient of a volume, and the number of a slice."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from absl import logging

from ipv2.ct_io.dicom_header import read_header
from ipv2.ct_io.dicom_series import first_ct_header
from ipv2.ct_io.formats import SUFFIXES, suffix_of
from ipv2.ct_io.listing import Item
from ipv2.ct_io.reading import peek
from ipv2.ct_io.volume import Volume

# A message names at most so many folders that share one PatientID.
_NAMED = 3


def patient_of(item: Item) -> str:
    """Returns the patient of a volume, for splits that keep patients apart.

    The patient is the first folder of the item's name, whatever PatientID states: in
    public data all folders may have one ID, 'Anonymous'. Without a folder it is the
    PatientID. Without that, it is the name of a file that holds a whole volume, or the
    name of a slice without its number: 'p3_0001' and 'p3_0002' are patient 'p3', and
    bare numbers are one patient, because neighbouring slices of one person must not
    get into two splits.

    Reads only headers.

    Raises:
      UserError: The file is no image, or damaged.
    """
    folder, _, stem = item.name.rpartition("/")
    if folder:
        return folder.split("/")[0]
    whole, patient = _stated_patient(item.path)
    if item.path.is_dir() and stem:
        return stem
    if patient:
        return patient
    stem = stem or item.path.resolve().name
    if whole:
        return stem
    return re.sub(r"[\s._-]*(slice|img|im)?[\s._-]*\d+$", "", stem, flags=re.I) or "one"


def _stated_patient(path: Path) -> tuple[bool, str]:
    """Returns whether a path is a whole volume, and its PatientID, '' if unstated."""
    if path.is_dir():
        return True, first_ct_header(path).patient
    if SUFFIXES.get(suffix_of(path), "dicom") == "dicom":
        return False, read_header(path).patient
    slices, patient = peek(path)
    return slices > 1, patient


def log_patients(patients: Mapping[str, Iterable[Item]]) -> None:
    """Logs a warning where folders and PatientIDs disagree.

    Args:
      patients: the items of each patient of `patient_of`.
    """
    by_id: dict[str, set[str]] = {}
    for patient, items in patients.items():
        ids = {stated for i in items if (stated := _stated_patient(i.path)[1])}
        for stated in ids:
            by_id.setdefault(stated, set()).add(patient)
        if len(ids) > 1:
            logging.warning(
                "folder %s holds PatientIDs %s; taken as one patient",
                *(patient, ", ".join(sorted(ids))),
            )
    for stated, folders in by_id.items():
        if len(folders) > 1:
            logging.warning(
                "PatientID %r is in %d folders (%s); each folder is taken as one "
                "patient. Put all volumes of a person into one folder.",
                *(stated, len(folders), ", ".join(sorted(folders)[:_NAMED])),
            )


def slice_number(volume: Volume, name: str, index: int) -> int:
    """Returns the index along the normal; for a single slice the number in its name."""
    if len(volume.hu) == 1 and (number := re.search(r"\d+$", name)):
        return int(number.group()) % 2**31
    return index

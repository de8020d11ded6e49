"""HU to a derived DICOM CT series, on pydicom.

Written with pydicom, since SimpleITK fails on attributes younger than its dictionary,
such as SyntheticData, and writes no sequences.
"""

import datetime
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import PersonName, format_number_as_ds

from ipv2.ct_io.volume import Grid, hu_to_int16

_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
# Of group 0028 (how pixels are stored) the writer sets all but these: the display
# window, and what was done to the image before.
_KEPT_0028 = frozenset(
    f"0028|{element}" for element in ("0301", "0303", "1050", "1051", "2110", "2112")
)
_TEXT = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_NUMBERS = dict.fromkeys(("SL", "SS", "UL", "US"), int) | {"FD": float, "FL": float}
# Type 2: archives want these to be there, if only empty.
_MAY_BE_EMPTY = (
    *("0008|0020", "0008|0030", "0008|0050", "0008|0070", "0008|0090", "0010|0020"),
    *("0010|0030", "0010|0040", "0018|0060", "0020|0010", "0020|0011", "0020|0012"),
    "0020|1040",
)


class SeriesWriter:
    """Writes a new, derived DICOM series, one file a slice.

    Tags of patient, study, equipment and geometry are kept; the series and its
    instances get new UIDs, ImageType begins DERIVED, SECONDARY, SourceImageSequence
    names the slice it was made of. Pixels are int16 with slope 1: HU exact to 1.
    Sequences and private tags are not carried over.
    """

    def __init__(
        self,
        grid: Grid,
        folder: Path,
        names: Sequence[str],
        *,
        series_description: str,
        derivation_description: str,
    ) -> None:
        """Settles what the slices share.

        Args:
          grid: `unit` HU, or mask.
          folder: where the files go; it exists.
          names: a file name for each slice.
          series_description: SeriesDescription, cut at its 64 characters.
          derivation_description: DerivationDescription, what was done to the image,
            cut at its 1024 characters.
        """
        self._grid, self._folder, self._names = grid, folder, names
        now = datetime.datetime.now()
        self._shared = {
            "0008|0005": "ISO_IR 192",
            "0008|0012": now.strftime("%Y%m%d"),
            "0008|0013": now.strftime("%H%M%S"),
            "0008|0016": _CT_STORAGE,
            "0008|0060": "CT",
            "0008|103e": series_description[:64],
            "0020|000e": _uid(),
            "0020|0037": _decimals(np.reshape(grid.direction, (3, 3)).T[:2].ravel()),
            "0028|0002": "1",
            "0028|0004": "MONOCHROME2",
            "0028|0030": _decimals(grid.spacing_mm[1:]),
            "0028|0100": "16",
            "0028|0101": "16",
            "0028|0102": "15",
            "0028|0103": "1",
            "0028|1053": "1",
            "0028|1054": "HU" if grid.unit == "HU" else "US",
        }
        if derivation_description:
            self._shared["0008|2111"] = derivation_description[:1024]
        self._new = {
            "0020|000d": _uid(),
            "0020|0052": _uid(),
            "0010|0010": grid.name,
        }

    def write(self, index: int, hu: np.ndarray, source: Mapping[str, str]) -> None:
        """Writes a slice.

        Args:
          index: of the slice.
          hu: (rows, columns).
          source: the tags of the slice that it was made of; {} if there is none.

        Raises:
          UserError: a value is not finite, or does not fit int16.
        """
        pixels = hu_to_int16(hu, name=self._grid.name)
        # Stored values of -1024 and more look unsigned to viewers; int16 must hold
        # them. Each slice has its own intercept, as the standard has it.
        offset = self._grid.unit == "HU" and pixels.max() <= 32767 - 1024
        intercept = -1024 if offset else 0
        tags = dict.fromkeys(_MAY_BE_EMPTY, "") | {
            key: value.strip(" \0")
            for key, value in source.items()
            if key[:4] not in ("0002", "7fe0")
            and (not key.startswith("0028|") or key in _KEPT_0028)
        }
        kind = tags.get("0008|0008", "").split("\\")[2:] or ["AXIAL"]
        position = self._grid.position_mm(index)
        tags |= {key: tags.get(key) or value for key, value in self._new.items()}
        tags |= self._shared
        tags |= {
            "0008|0008": "\\".join(["DERIVED", "SECONDARY", *kind]),
            "0008|0018": _uid(),
            "0020|0013": tags.get("0020|0013") or str(index + 1),
            "0020|0032": _decimals(position),
            "0020|1041": _decimals([np.dot(position, self._grid.normal)]),
            "0028|0010": str(pixels.shape[0]),
            "0028|0011": str(pixels.shape[1]),
            "0028|1052": str(intercept),
        }
        tags.setdefault("0018|0050", _decimals(self._grid.spacing_mm[:1]))
        data = _dataset(tags)
        if "0008|0018" in source:
            data.SourceImageSequence = [_reference(source)]
        # In 32 bits: what the intercept is taken from may reach beyond int16.
        stored = pixels.astype(np.int32) - intercept
        data.PixelData = stored.astype("<i2").tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(self._folder / self._names[index], enforce_file_format=True)


def _dataset(tags: Mapping[str, str]) -> Dataset:
    """A data set of the tags that the standard's dictionary has; the rest is left."""
    data = Dataset()
    for key, text in tags.items():
        tag = Tag(key.replace("|", ""))
        if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag):
            continue
        vr = dictionary_VR(tag)
        if vr in _TEXT:
            # As it is: scanners write numbers and dates that pydicom would refuse.
            value = PersonName(text) if vr == "PN" else text
            data.add(DataElement(tag, vr, value, already_converted=True))
        elif vr in _NUMBERS:
            values = [_NUMBERS[vr](value) for value in text.split("\\") if value]
            data.add(DataElement(tag, vr, values))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(tags["0008|0016"])
    meta.MediaStorageSOPInstanceUID = UID(tags["0008|0018"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta = meta
    return data


def _reference(source: Mapping[str, str]) -> Dataset:
    """An item of SourceImageSequence: the slice that a derived one was made of."""
    purpose = Dataset()
    purpose.CodeValue = "121322"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item = Dataset()
    item.ReferencedSOPClassUID = source.get("0008|0016", _CT_STORAGE).strip(" \0")
    item.ReferencedSOPInstanceUID = source["0008|0018"].strip(" \0")
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _decimals(values: Sequence[float] | np.ndarray) -> str:
    """Numbers as a DICOM decimal string, as exact as its 16 characters allow."""
    return "\\".join(format_number_as_ds(float(value)) for value in values)


def _uid() -> str:
    # PS3.5, B.2: 2.25 and a UUID as an integer needs no registered root.
    return f"2.25.{uuid.uuid4().int}"

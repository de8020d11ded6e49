"""HU to a derived DICOM CT series, on pydicom.

Written with pydicom, since SimpleITK fails on attributes younger than its dictionary,
such as SyntheticData, and writes no sequences.
"""

import datetime
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.charset import default_encoding, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import PersonName, format_number_as_ds

from ipv2.ct_io.dicom_carrying import carried
from ipv2.ct_io.dicom_header import encodings_of, number_of, text_of
from ipv2.ct_io.volume import Grid, hu_to_int16

_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
# Type 2: archives want these to be there, if only empty.
_MAY_BE_EMPTY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "Manufacturer", "PatientID"),
    *("ReferringPhysicianName", "PatientBirthDate", "PatientSex", "KVP", "StudyID"),
    *("SeriesNumber", "AcquisitionNumber", "PositionReferenceIndicator"),
)
# The lengths that the standard allows for LO and ST.
_DESCRIPTION, _DERIVATION = 64, 1024


class SeriesWriter:
    """Writes a new, derived DICOM series, one file a slice.

    What is kept of a slice's header: see `dicom_carrying`. The series and its instances
    get new UIDs, ImageType begins DERIVED, SECONDARY, SourceImageSequence names the
    slice it was made of, DerivationDescription is appended to. Pixels are int16 with
    slope 1: HU exact to 1.

    Geometry is the source slice's own, to the text; what its header does not state is
    not written. Without a source it is the grid's.
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
          derivation_description: DerivationDescription, what was done to the image;
            with what the source says already it is cut at its 1024 characters.
        """
        self._grid, self._folder, self._names = grid, folder, names
        self._derivation = derivation_description
        now = datetime.datetime.now()
        self._shared = {
            "InstanceCreationDate": now.strftime("%Y%m%d"),
            "InstanceCreationTime": now.strftime("%H%M%S"),
            "SOPClassUID": _CT_STORAGE,
            "Modality": "CT",
            "SeriesDescription": series_description[:_DESCRIPTION],
            "SeriesInstanceUID": _uid(),
            "PhotometricInterpretation": "MONOCHROME2",
            "RescaleSlope": "1",
            "RescaleType": "HU" if grid.unit == "HU" else "US",
        }
        self._new = {"StudyInstanceUID": _uid(), "FrameOfReferenceUID": _uid()}

    def write(self, index: int, hu: np.ndarray, source: Dataset | None) -> None:
        """Writes a slice.

        Args:
          index: of the slice.
          hu: (rows, columns).
          source: the header of the slice that it was made of, if there is one.

        Raises:
          UserError: a value is not finite, or does not fit int16.
        """
        pixels = hu_to_int16(hu, name=self._grid.name)
        # Stored values of -1024 and more look unsigned to viewers; int16 must hold
        # them. Each slice has its own intercept, as the standard has it.
        offset = self._grid.unit == "HU" and pixels.max() <= 32767 - 1024
        intercept = -1024 if offset else 0
        data = self._geometry(index) if source is None else carried(source)
        encodings = encodings_of(data)
        texts = self._texts(index, data) | {"RescaleIntercept": str(intercept)}
        for keyword, text in texts.items():
            _set_text(data, keyword, _encodable(text, encodings))
        data.SamplesPerPixel = 1
        data.Rows, data.Columns = pixels.shape
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit = 15
        data.PixelRepresentation = 1
        if source is not None and text_of(source, "SOPInstanceUID"):
            data.SourceImageSequence = [_reference(source)]
        # In 32 bits: what the intercept is taken from may reach beyond int16.
        stored = pixels.astype(np.int32) - intercept
        data.PixelData = stored.astype("<i2").tobytes()
        data["PixelData"].VR = "OW"
        data.file_meta = _meta(texts["SOPClassUID"], texts["SOPInstanceUID"])
        _save(data, self._folder / self._names[index])

    def _texts(self, index: int, data: Dataset) -> dict[str, str]:
        """What the slice's header is given as text."""
        kind = text_of(data, "ImageType").split("\\")[2:] or ["AXIAL"]
        before = text_of(data, "DerivationDescription")
        own = self._derivation[:_DERIVATION]
        if before and own:
            own = f"{before[: max(_DERIVATION - len(own) - 2, 0)]}; {own}".lstrip("; ")
        texts = {k: "" for k in _MAY_BE_EMPTY if k not in data}
        texts |= {k: v for k, v in self._new.items() if not text_of(data, k)}
        texts |= self._shared
        texts |= {"DerivationDescription": own} if own else {}
        return texts | {
            "ImageType": "\\".join(["DERIVED", "SECONDARY", *kind]),
            "SOPInstanceUID": _uid(),
            "InstanceNumber": text_of(data, "InstanceNumber") or str(index + 1),
        }

    def _geometry(self, index: int) -> Dataset:
        """A header with the grid's geometry, as far as it is known."""
        data = Dataset()
        grid = self._grid
        texts = {
            "SpecificCharacterSet": "ISO_IR 192",
            "PatientName": grid.name,
        }
        if grid.positions_known:
            position = grid.position_mm(index)
            axes = np.reshape(grid.direction, (3, 3)).T[:2].ravel()
            texts["ImagePositionPatient"] = _decimals(position)
            texts["ImageOrientationPatient"] = _decimals(axes)
            texts["SliceLocation"] = _decimals([np.dot(position, grid.normal)])
        if grid.spacing_stated:
            texts["PixelSpacing"] = _decimals(grid.spacing_mm[1:])
            texts["SliceThickness"] = _decimals(grid.spacing_mm[:1])
        for keyword, text in texts.items():
            _set_text(data, keyword, text)
        return data


def _save(data: Dataset, path: Path) -> None:
    """Writes a data set whose raw elements are in explicit little endian already."""
    sets = encodings_of(data) if "SpecificCharacterSet" in data else default_encoding
    data.set_original_encoding(False, True, sets)
    # pydicom warns of character sets that scanners misspell, and writes them all the
    # same.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(path, enforce_file_format=True)


def _set_text(data: Dataset, keyword: str, text: str) -> None:
    vr = dictionary_VR(keyword)
    value = PersonName(text) if vr == "PN" else text
    # As it is: pydicom would refuse numbers and names that scanners write.
    element = DataElement(keyword, vr, value, already_converted=True)
    data[element.tag] = element


def _encodable(text: str, encodings: list[str]) -> str:
    """The text, with '?' for what the character sets of its header do not have."""
    if text.isascii():
        return text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            encode_string(text, encodings)
        except (UnicodeEncodeError, UserWarning):
            return text.encode("ascii", "replace").decode()
    return text


def _meta(sop_class: str, sop_instance: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _reference(source: Dataset) -> Dataset:
    """An item of SourceImageSequence: the slice that a derived one was made of."""
    purpose = Dataset()
    purpose.CodeValue = "121322"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item = Dataset()
    item.ReferencedSOPClassUID = UID(text_of(source, "SOPClassUID") or _CT_STORAGE)
    item.ReferencedSOPInstanceUID = UID(text_of(source, "SOPInstanceUID"))
    if number := number_of(source, "ReferencedFrameNumber", 0):
        item.ReferencedFrameNumber = int(number)
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _decimals(values: Sequence[float] | np.ndarray) -> str:
    """Numbers as a DICOM decimal string, as exact as its 16 characters allow."""
    return "\\".join(format_number_as_ds(float(value)) for value in values)


def _uid() -> str:
    # PS3.5, B.2: 2.25 and a UUID as an integer needs no registered root.
    return f"2.25.{uuid.uuid4().int}"

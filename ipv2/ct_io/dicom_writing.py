"""Writes HU as a derived DICOM CT series, with pydicom.

SimpleITK fails on attributes that are newer than its dictionary, such as SyntheticData,
and writes no sequences.
"""

import datetime
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
from ipv2.ct_io.dicom_header import encodings_of, new_uid, number_of, text_of
from ipv2.ct_io.volume import Grid, hu_to_int16

_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
# Type 2: archives require these, but they may be empty.
_MAY_BE_EMPTY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "Manufacturer", "PatientID"),
    *("ReferringPhysicianName", "PatientBirthDate", "PatientSex", "KVP", "StudyID"),
    *("SeriesNumber", "AcquisitionNumber", "PositionReferenceIndicator"),
)
# The lengths that the standard allows for LO and ST.
_DESCRIPTION, _DERIVATION = 64, 1024


class SeriesWriter:
    """Writes a new, derived DICOM series, one file per slice.

    `dicom_carrying` selects the elements that a slice keeps from its source's header.
    The series and its instances get new UIDs, ImageType begins with DERIVED, SECONDARY,
    SourceImageSequence names the source slice, and DerivationDescription is extended.
    Pixels are int16 with slope 1: HU exact to 1.

    The geometry is the exact text of the source slice's header; attributes that it does
    not state are not written. Without a source the geometry is the grid's.
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
        """Sets the attributes that the slices share.

        Args:
          grid: grid of the volume; `unit` is HU or mask.
          folder: existing folder for the files.
          names: a file name for each slice.
          series_description: SeriesDescription, cut to 64 characters.
          derivation_description: DerivationDescription, the processing of the image;
            together with the source's own text it is cut to 1024 characters.
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
            "SeriesInstanceUID": new_uid(),
            "PhotometricInterpretation": "MONOCHROME2",
            "RescaleSlope": "1",
            "RescaleType": "HU" if grid.unit == "HU" else "US",
        }
        self._new = {"StudyInstanceUID": new_uid(), "FrameOfReferenceUID": new_uid()}

    def write(self, index: int, hu: np.ndarray, source: Dataset | None) -> None:
        """Writes a slice.

        Args:
          index: index of the slice.
          hu: (rows, columns).
          source: header of the source slice, if there is one.

        Raises:
          UserError: A value is not finite, or does not fit int16.
        """
        pixels = hu_to_int16(hu, name=self._grid.name)
        # With intercept -1024 stored values of -1024 HU and more are unsigned, as
        # viewers expect, if int16 holds them. The standard has one per slice.
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
        # In 32 bits, because the difference may exceed int16.
        stored = pixels.astype(np.int32) - intercept
        data.PixelData = stored.astype("<i2").tobytes()
        data["PixelData"].VR = "OW"
        data.file_meta = _meta(texts["SOPClassUID"], texts["SOPInstanceUID"])
        _save(data, self._folder / self._names[index])

    def _texts(self, index: int, data: Dataset) -> dict[str, str]:
        """Returns the new texts of the slice's header."""
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
            "SOPInstanceUID": new_uid(),
            "InstanceNumber": text_of(data, "InstanceNumber") or str(index + 1),
        }

    def _geometry(self, index: int) -> Dataset:
        """Returns a header with the grid's geometry, as far as it is known."""
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
    """Writes a dataset whose raw elements are already in explicit little endian."""
    sets = encodings_of(data) if "SpecificCharacterSet" in data else default_encoding
    data.set_original_encoding(False, True, sets)
    # pydicom warns of character sets that scanners misspell, but writes them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(path, enforce_file_format=True)


def _set_text(data: Dataset, keyword: str, text: str) -> None:
    vr = dictionary_VR(keyword)
    value = PersonName(text) if vr == "PN" else text
    # Not converted: pydicom would refuse numbers and names that scanners write.
    element = DataElement(keyword, vr, value, already_converted=True)
    data[element.tag] = element


def _encodable(text: str, encodings: list[str]) -> str:
    """Replaces characters that the header's character sets lack by '?'."""
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
    """Returns an item of SourceImageSequence for the source slice."""
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
    """Returns numbers as a DICOM decimal string, as exact as 16 characters allow."""
    return "\\".join(format_number_as_ds(float(value)) for value in values)

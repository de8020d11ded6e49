"""Selects the header elements that a derived DICOM slice keeps from its source.

Kept, byte by byte and in the file's character set: patient, study, equipment,
acquisition and geometry; the display window with its explanation and VOI LUT function;
earlier changes to the pixels (lossy compression, burned-in annotation).

Dropped:
- sequences, which refer to objects and requests of the source. The exception is
  CTDIPhantomTypeCodeSequence, the phantom in which CTDIvol was measured: the two are
  kept together or dropped together;
- private elements: only their vendor knows whether they hold for a derived image;
- overlays and curves (groups 60xx and 50xx): they were drawn on the source's pixels;
- the rest of group 0028: how the source's pixels were stored, with padding values;
- PixelSpacing that is not two numbers above 0.
"""

from absl import logging
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.tag import BaseTag

from ipv2.ct_io.dicom_header import GARBLED, encodings_of, numbers_of

_KEPT_0028 = frozenset(
    (
        *(
            "PixelSpacing",
            "BurnedInAnnotation",
            "LongitudinalTemporalInformationModified",
        ),
        *("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"),
        *("VOILUTFunction", "LossyImageCompression", "LossyImageCompressionRatio"),
        "LossyImageCompressionMethod",
    )
)
_PHANTOM = frozenset(("CTDIvol", "CTDIPhantomTypeCodeSequence"))
_KEPT_SEQUENCES = frozenset(("CTDIPhantomTypeCodeSequence",))


def carried(source: Dataset) -> Dataset:
    """Returns the elements of a header that a derived slice keeps.

    Args:
      source: a header of any transfer syntax; it is not changed.

    Returns:
      A header to write in explicit little endian. Texts keep their bytes.
    """
    result = Dataset()
    for tag in source.keys():
        if not _is_kept(tag):
            continue
        element = source.get_item(tag, keep_deferred=True)
        if isinstance(element, RawDataElement):
            element = _explicit(element, source)
        elif element.VR == "SQ" and keyword_for_tag(tag) not in _KEPT_SEQUENCES:
            element = None
        if element is not None:
            result[tag] = element
    if "PixelSpacing" in result and not _is_size(numbers_of(result, "PixelSpacing")):
        del result["PixelSpacing"]
    if not _PHANTOM <= set(result.dir()):
        for keyword in _PHANTOM & set(result.dir()):
            del result[keyword]
    return result


def _is_size(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and all(value > 0 for value in values)


def _is_kept(tag: BaseTag) -> bool:
    if keyword_for_tag(tag) == "ReferencedFrameNumber":
        return False  # the reader added it: the number of the slice's frame
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag):
        return False
    if tag.group == 0x0028:
        return keyword_for_tag(tag) in _KEPT_0028
    drawn = tag.group & 0xFF00 in (0x5000, 0x6000)
    return not drawn and tag.group not in (0x0002, 0x0004, 0x7FE0, 0xFFFA, 0xFFFC)


def _explicit(
    raw: RawDataElement, source: Dataset
) -> DataElement | RawDataElement | None:
    """Returns a raw element for explicit little endian; None if it is dropped."""
    vr = raw.VR if raw.VR not in (None, "UN") else dictionary_VR(raw.tag)
    if raw.value is None and raw.length:
        # pydicom left it on disk: it is far larger than any kept attribute.
        logging.warning("%s: %d bytes; not kept", keyword_for_tag(raw.tag), raw.length)
        return None
    raw = raw._replace(value=raw.value or b"")
    if vr == "SQ":
        kept = keyword_for_tag(raw.tag) in _KEPT_SEQUENCES
        return source[raw.tag] if kept else None
    if raw.is_little_endian:
        return raw._replace(VR=vr, is_implicit_VR=False)
    try:
        return convert_raw_data_element(raw, encoding=encodings_of(source))
    except GARBLED:
        logging.warning("%s: value is not %s; not kept", keyword_for_tag(raw.tag), vr)
        return None

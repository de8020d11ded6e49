"""Finds the pixels of a DICOM slice outside the field of view."""

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset

from common.errors import UserError
from ipv2.ct_io.dicom_header import bits_of, number_of
from ipv2.ct_io.volume import PADDING_HU

# Scanners mark the outside of the field of view with -2000, -2048, -3024, -3072. No
# tissue is so low, and no realistic noise of air.
ALWAYS_PADDING_HU = -2000.0
_DARKEST_TISSUE_HU = -900.0


class PaddingRange(NamedTuple):
    """The range of HU, `low` to `high`, that PixelPaddingValue marks."""

    low: float
    high: float

    def marks(self, hu: np.ndarray) -> np.ndarray:
        """Returns a mask of the pixels with these values."""
        # The tolerance is for float32 HU of whole stored values.
        return (hu >= self.low - 1e-3) & (hu <= self.high + 1e-3)

    def is_believed(self, hu: np.ndarray) -> bool:
        """Returns whether the values can mean padding in a slice.

        The standard requires a value that the image itself does not contain (PS3.3,
        C.7.5.1.1.2). So the marked pixels must be darker than all of CT, or beyond all
        other pixels, or as dark as lung and, except for one in a hundred, joined to the
        image's border. The value 0 in HU data, which is water, satisfies none of these.
        """
        marked = self.marks(hu)
        if self.high <= PADDING_HU or not marked.any():
            return True
        others = hu[~marked]
        if others.size and (self.low > others.max() or self.high < others.min()):
            return True
        if self.high > _DARKEST_TISSUE_HU:
            return False
        joined = np.count_nonzero(_joined_to_border(marked))
        return bool(joined >= 0.99 * np.count_nonzero(marked))


def _joined_to_border(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of a mask that are 4-connected to the border through it."""
    border = mask.copy()
    border[1:-1, 1:-1] = False
    marker, whole = (
        sitk.GetImageFromArray(one.astype(np.uint8)) for one in (border, mask)
    )
    joined = sitk.BinaryReconstructionByDilation(
        marker, whole, foregroundValue=1, fullyConnected=False
    )
    return sitk.GetArrayFromImage(joined) > 0


def pad_low(hu: np.ndarray) -> np.ndarray:
    """Sets HU of -2000 and less to PADDING_HU.

    Values between -2000 and -1024 are noise of real air and stay.
    """
    return np.where(hu <= ALWAYS_PADDING_HU, np.float32(PADDING_HU), hu)


def pad(hu: np.ndarray, padding: PaddingRange | None) -> np.ndarray:
    """Sets pixels outside the field of view to PADDING_HU.

    Args:
      hu: values of a slice.
      padding: believed range of the header; None without one.
    """
    if padding is None:
        return pad_low(hu)
    return pad_low(np.where(padding.marks(hu), np.float32(PADDING_HU), hu))


def padding_of(header: Dataset, *, name: str) -> PaddingRange | None:
    """Returns the range from PixelPaddingValue to PixelPaddingRangeLimit, or None.

    Both are stored values, before rescale. Their sign is ambiguous (US or SS), so they
    are wrapped to the sign of the pixels.

    Args:
      header: header of a slice.
      name: name of the slice for messages.

    Raises:
      UserError: The values are no whole numbers.
    """
    texts = [
        bits_of(header, keyword)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    ]
    if not texts[0]:
        return None
    bits = int(number_of(header, "BitsAllocated", 16.0))
    signed = number_of(header, "PixelRepresentation", 0.0) == 1.0
    slope = number_of(header, "RescaleSlope", 1.0)
    intercept = number_of(header, "RescaleIntercept", 0.0)

    def hu(text: str) -> float:
        value = int(text) % (1 << bits)
        if signed and value >> (bits - 1):
            value -= 1 << bits
        return slope * value + intercept

    try:
        low, high = sorted((hu(texts[0]), hu(texts[1] or texts[0])))
    except ValueError as error:
        raise UserError(
            f"{name}: PixelPaddingValue {texts[0]!r} and PixelPaddingRangeLimit "
            f"{texts[1]!r} must be whole numbers. Repair the tags."
        ) from error
    return PaddingRange(low, high)

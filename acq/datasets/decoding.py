"""Reads image files lazily, as uint8 in the size of a classifier."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from common.errors import UserError

INTERPOLATIONS = MappingProxyType(
    {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
)
_MODES = MappingProxyType({1: "L", 3: "RGB"})
# Errors of PIL for files that are damaged, truncated, or not images.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class UnusableImage(UserError):
    """An image file that cannot be used; the message begins with its name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing:
    """Resizing and cropping to a classifier's size, as in evaluations of ImageNet.

    The short side is resized to size / resize and the long side in proportion, with
    antialiasing. Then the middle is cropped. All rounding is torchvision's.

    Attributes:
      size: Side of the resulting square.
      channels: 1 for grey, 3 for RGB; other files are converted.
      resize: In (0, 1], the share of the short side that stays: 0.875 is 224 of 256. 0
        resizes nothing; images must have the size.
      interpolation: One of INTERPOLATIONS.
    """

    size: int
    channels: int
    resize: float | int = 0.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Raises UserError for a number of channels that no image file has."""
        if self.channels not in _MODES:
            raise UserError(
                f"the teacher takes images of {self.channels} channels, image files "
                "have 1 or 3. Give config.eval.path an .npz."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image: h, w, c."""
        return self.size, self.size, self.channels


class StoredImages:
    """Images that are read at each indexing, and not kept."""

    def __init__(
        self,
        read: Callable[[int], UInt8[np.ndarray, "h w c"]],
        count: int,
        shape: tuple[int, int, int],
    ) -> None:
        """Reads nothing yet.

        Args:
          read: Returns the image of an index; several threads call it at once.
          count: Number of images.
          shape: Of each image.
        """
        self._read, self._count, self._shape = read, count, shape

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    def __getitem__(self, indices: Any) -> UInt8[np.ndarray, "b h w c"]:
        """Returns the images at an array or slice of indices."""
        chosen = np.arange(self._count)[indices]
        images = np.empty((len(chosen), *self._shape), np.uint8)
        for image, index in zip(images, chosen, strict=True):
            image[:] = self._read(int(index))
        return images


def read_image(
    source: Path | bytes, framing: Framing, name: str
) -> UInt8[np.ndarray, "h w c"]:
    """Returns an image file's pixels.

    Args:
      source: The file, or its content.
      framing: Size and channels.
      name: Of the file, for messages.

    Raises:
      UnusableImage: It cannot be read, has more than 8 bits, or the wrong size.
    """
    try:
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source
        ) as f:
            return _frame(_convert(f, framing.channels, name), framing, name)
    except UnusableImage:
        raise
    except _UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnusableImage(
            f"{name}: not readable as an image ({reason}). Replace the file or take "
            "it out of the evaluation data."
        ) from error


def _convert(image: Image.Image, channels: int, name: str) -> Image.Image:
    if image.mode[0] in "IF":
        raise UnusableImage(
            f"{name}: pixels of PIL's mode {image.mode!r}, which has more than 8 bits "
            "per channel; accepted: 8-bit grey or colour. Convert the file."
        )
    if image.mode == "P" and "transparency" in image.info:
        # This keeps the pixels; PIL warns if it drops transparency directly to RGB.
        image = image.convert("RGBA")
    return image.convert(_MODES[channels])


def _frame(
    image: Image.Image, framing: Framing, name: str
) -> UInt8[np.ndarray, "h w c"]:
    size = framing.size
    if framing.resize:
        short = int(size / framing.resize)
        width, height = image.size
        least = min(width, height)
        # The long side is truncated to whole pixels, not rounded.
        resized = (int(short * width / least), int(short * height / least))
        if resized != image.size:
            image = image.resize(resized, INTERPOLATIONS[framing.interpolation])
        left, top = (round((side - size) / 2) for side in image.size)
        image = image.crop((left, top, left + size, top + size))
    elif image.size != (size, size):
        width, height = image.size
        raise UnusableImage(
            f"{name}: {width} x {height} pixels, the teacher takes {size} x {size}. "
            "Give images of that size, or --config.eval.resize=0.875, which resizes "
            "and crops them."
        )
    return np.asarray(image, np.uint8).reshape(framing.shape)

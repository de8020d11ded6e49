"""What SimpleITK does not say of NIfTI and PNG files: damage, NaN, colour."""

import contextlib
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
from nibabel.filebasedimages import ImageFileError

from common.errors import UserError


def check_nifti(path: Path, *, name: Path) -> None:
    """Raises UserError if a NIfTI file is too short, or holds NaN or infinity.

    SimpleITK tells neither: it fills what is missing with whatever memory holds, and
    replaces what is not finite by 0, which is water.

    Args:
      path: the file.
      name: what messages call it: the file that it was unpacked from.

    Raises:
      UserError: the file is damaged.
      OSError: the file cannot be read at all.
    """
    with damage_told(name):
        image: Any = nibabel.load(path)
        proxy = image.dataobj
        if image.get_data_dtype().kind in "iu":
            proxy.get_unscaled()  # a map of the file, which must be long enough
            return
        # Slice by slice, but not of a packed file, which would be unpacked each time.
        packed = path.suffix == ".gz"
        whole = [proxy.get_unscaled()] if packed or len(proxy.shape) < 3 else None
        parts = whole or (proxy[:, :, index] for index in range(proxy.shape[2]))
        bad = sum(np.count_nonzero(~np.isfinite(part)) for part in parts)
    if bad:
        raise UserError(
            f"{name}: {bad} voxels are not finite (NaN or infinity); HU are finite "
            "numbers. Repair or remove the image."
        )


@contextlib.contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turns what nibabel, gzip and zlib say of a damaged file into UserError."""
    try:
        yield
    except ImageFileError as error:
        raise UserError(
            f"{path}: not NIfTI: its header is not one. It is damaged, truncated, or "
            "of another kind than its name says."
        ) from error
    except (EOFError, OSError, ValueError, zlib.error) as error:
        if getattr(error, "errno", None) is not None or isinstance(error, UserError):
            raise  # not what the file holds: it cannot be read at all
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: truncated or damaged ({reason}). Copy it again from its source."
        ) from error


def check_png(path: Path) -> None:
    """Raises UserError unless a PNG is grey, with 8 or 16 bits."""
    try:
        with warnings.catch_warnings(), PIL.Image.open(path, formats=["PNG"]) as image:
            # Pillow warns of sizes that could be an attack; a large grey one is fine.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            mode = image.mode
    except (PIL.UnidentifiedImageError, SyntaxError) as error:
        raise UserError(
            f"{path}: not PNG: its header is not one. It is damaged, truncated, or of "
            "another kind than its name says."
        ) from error
    if mode not in ("L", "I;16"):
        name = {"P": "palette colour", "LA": "grey with alpha", "1": "black and white"}
        raise UserError(
            f"{path}: {name.get(mode, f'colour ({mode})')}; CT is one grey channel of "
            "8 or 16 bits. Save it as plain grey, or give the original instead of a "
            "screenshot."
        )

"""Checks image files for faults that SimpleITK hides, and reads their headers."""

import contextlib
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener

from common.errors import UserError
from ipv2.ct_io.volume import Format


def check_nifti(path: Path, *, name: Path) -> None:
    """Raises UserError if a NIfTI file is too short, or holds NaN or infinity.

    SimpleITK reports neither: it fills missing voxels with random memory, and replaces
    values that are not finite by 0, which is water.

    Args:
      path: the file.
      name: name for messages: the file from which it was unpacked.

    Raises:
      UserError: The file is damaged.
      OSError: The file cannot be read at all.
    """
    with damage_as_user_error(name):
        image: Any = nibabel.load(path)
        proxy = image.dataobj
        if image.get_data_dtype().kind not in "iuf":
            raise UserError(
                f"{name}: pixels of type {image.get_data_dtype()}, which hold more "
                "than one grey value; CT has one channel. Save the image as plain grey."
            )
        if image.get_data_dtype().kind in "iu":
            proxy.get_unscaled()  # a map of the file, which must be long enough
            return
        # Slice by slice, except for a packed file, which would be unpacked each time.
        packed = path.suffix == ".gz"
        whole = [proxy.get_unscaled()] if packed or len(proxy.shape) < 3 else None
        parts = whole or (proxy[:, :, index] for index in range(proxy.shape[2]))
        bad = sum(np.count_nonzero(~np.isfinite(part)) for part in parts)
    if bad:
        raise UserError(
            f"{name}: {bad} voxels are not finite (NaN or infinity); HU are finite "
            "numbers. Repair or remove the image."
        )


def states_spacing(path: Path, kind: Format) -> bool:
    """Returns whether a file states the distance between its voxels along every axis.

    SimpleITK assumes 1 mm if a file does not.

    Args:
      path: a file that SimpleITK can read.
      kind: format of the file.
    """
    if kind == "nifti":
        header: Any = nifti_header(path)
        dimensions = int(header["dim"][0])
        sizes = np.asarray(header["pixdim"][1 : min(dimensions, 3) + 1], float)
        return bool(
            header["sform_code"] > 0 or (np.isfinite(sizes) & (sizes > 0)).all()
        )
    if kind in ("mha", "mhd"):
        fields, _ = text_fields(path, kind)
        text = fields.get("elementspacing") or fields.get("elementsize") or ""
        return _are_nonzero(text.split())
    if kind == "nrrd":
        fields, _ = text_fields(path, kind)
        if "space directions" in fields:
            vectors = re.findall(r"\(([^)]*)\)", fields["space directions"])
            return len(vectors) >= 2 and all(
                any(_are_nonzero([part]) for part in vector.split(","))
                for vector in vectors
            )
        return _are_nonzero(fields.get("spacings", "").split())
    return False


def _are_nonzero(texts: Sequence[str]) -> bool:
    """Returns whether texts are one or more finite numbers other than 0."""
    try:
        values = np.asarray([float(text) for text in texts])
    except ValueError:
        return False
    return values.size > 0 and bool((np.isfinite(values) & (values != 0)).all())


def nifti_header(path: Path) -> nibabel.Nifti1Header:
    """Returns the header of a NIfTI file, unchanged."""
    # Unchecked, because nibabel's check replaces 0 by 1.
    with ImageOpener(str(path)) as file:
        return nibabel.Nifti1Header.from_fileobj(file, check=False)


def text_fields(path: Path, kind: Format) -> tuple[dict[str, str], int]:
    """Returns the fields of the text header of MHA, MHD or NRRD, and its length.

    Args:
      path: the file.
      kind: 'mha', 'mhd' or 'nrrd'.

    Returns:
      Values by name in small letters; the header's length in bytes.
    """
    separator = ": " if kind == "nrrd" else "="
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file:
            text = line.decode("latin-1").strip()
            if kind == "nrrd" and not text:  # an empty line ends a NRRD header
                break
            key, found, value = text.partition(separator)
            if found and not text.startswith("#"):
                fields[key.strip().lower()] = value.strip()
            if "elementdatafile" in fields:  # the last line of a MetaImage's header
                break
        return fields, file.tell()


@contextlib.contextmanager
def damage_as_user_error(path: Path) -> Iterator[None]:
    """Turns errors of nibabel, gzip and zlib for damaged files into UserError."""
    try:
        yield
    except ImageFileError as error:
        raise UserError(
            f"{path}: not NIfTI: it has no NIfTI header. The file is damaged, "
            "truncated, or of another format than its name states."
        ) from error
    except (EOFError, OSError, ValueError, zlib.error) as error:
        if getattr(error, "errno", None) is not None or isinstance(error, UserError):
            raise  # the file cannot be read at all
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: truncated or damaged ({reason}). Copy it again from its source."
        ) from error


def check_png(path: Path) -> None:
    """Raises UserError unless a PNG is grey, with 8 or 16 bits."""
    try:
        with warnings.catch_warnings(), PIL.Image.open(path, formats=["PNG"]) as image:
            # Pillow warns of sizes that could be an attack; large grey images are fine.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            mode = image.mode
    except (PIL.UnidentifiedImageError, SyntaxError) as error:
        raise UserError(
            f"{path}: not PNG: it has no PNG header. The file is damaged, truncated, "
            "or of another format than its name states."
        ) from error
    if mode not in ("L", "I;16"):
        name = {"P": "palette colour", "LA": "grey with alpha", "1": "black and white"}
        raise UserError(
            f"{path}: {name.get(mode, f'colour ({mode})')}; CT is one grey channel of "
            "8 or 16 bits. Save it as plain grey, or give the original instead of a "
            "screenshot."
        )

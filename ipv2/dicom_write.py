"""HU to a derived DICOM CT series, on SimpleITK."""

import datetime
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ipv2.volume import Volume, hu_to_int16

# Of group 0028 (how pixels are stored) the writer sets all but these: the display
# window, and what was done to the image before.
_KEPT_0028 = frozenset(
    f"0028|{element}" for element in ("0301", "0303", "1050", "1051", "2110", "2112")
)


def write_slices(
    volume: Volume,
    folder: Path,
    names: Sequence[str],
    *,
    series_description: str,
    derivation_description: str,
) -> None:
    """Writes a volume as a new, derived DICOM series of one file a slice.

    Tags of patient, study, equipment and geometry are kept; the series and its
    instances get new UIDs, ImageType begins DERIVED, SECONDARY. Pixels are int16 with
    slope 1: HU exact to 1. Sequences and private tags are not carried over.

    Args:
      volume: `unit` HU, or mask.
      folder: where the files go; it exists.
      names: a file name for each slice.
      series_description: SeriesDescription, cut at its 64 characters.
      derivation_description: DerivationDescription, what was done to the image.
    """
    pixels = hu_to_int16(volume.hu, name=volume.name)
    # Stored values of -1024 and more look unsigned to viewers; int16 must hold them.
    hu = volume.unit == "HU"
    intercept = -1024 if hu and pixels.max() <= 32767 - 1024 else 0
    now = datetime.datetime.now()
    shared = {
        "0008|0005": "ISO_IR 192",
        "0008|0012": now.strftime("%Y%m%d"),
        "0008|0013": now.strftime("%H%M%S"),
        "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
        "0008|0060": "CT",
        "0008|103e": series_description[:64],
        "0020|000e": _uid(),
        "0028|1052": str(intercept),
        "0028|1053": "1",
        "0028|1054": "HU" if hu else "US",
    }
    if derivation_description:
        shared["0008|2111"] = derivation_description[:1024]
    new = {"0020|000d": _uid(), "0020|0052": _uid(), "0010|0010": volume.name}
    for index, name in enumerate(names):
        source = volume.slice_tags[index] if volume.slice_tags else {}
        tags = {
            key: value.strip(" \0")
            for key, value in source.items()
            if key[:4] not in ("0002", "7fe0")
            and (not key.startswith("0028|") or key in _KEPT_0028)
            and not key.endswith("|0000")
        }
        kind = tags.get("0008|0008", "").split("\\")[2:] or ["AXIAL"]
        position = volume.position_mm(index)
        tags |= {key: tags.get(key) or value for key, value in new.items()} | shared
        tags |= {
            "0008|0008": "\\".join(["DERIVED", "SECONDARY", *kind]),
            "0008|0018": _uid(),
            "0020|0013": tags.get("0020|0013") or str(index + 1),
            "0020|1041": f"{np.dot(position, volume.normal):.6g}",
        }
        tags.setdefault("0018|0050", f"{volume.spacing_mm[0]:.6g}")
        image = sitk.GetImageFromArray(pixels[index][None])
        image.SetSpacing(volume.spacing_mm[::-1])
        image.SetOrigin(position.tolist())
        image.SetDirection(volume.direction)
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / name))
        writer.Execute(image)


def _uid() -> str:
    # PS3.5, B.2: 2.25 and a UUID as an integer needs no registered root.
    return f"2.25.{uuid.uuid4().int}"

"""The record of every pair dataset: one slice at low dose and at normal dose.

| key          | type, shape        | meaning                                          |
|--------------|--------------------|--------------------------------------------------|
| `lq`         | int16 (h, w)       | low-dose slice, HU                               |
| `gt`         | int16 (h, w)       | normal-dose slice of another breath, HU          |
| `truth`      | int16 (h, w)       | normal-dose image in `lq`'s own breath, HU; only |
|              |                    | where it is known exactly (simulated data)       |
| `spacing_mm` | float32 (2,)       | size of a pixel: (row, column); NaN if unknown   |
| `patient`    | text               | the splits keep patients apart                   |
| `name`       | text               | the volume: its file's or folder's name          |
| `slice`      | int32              | index along the volume's normal                  |

`sample_ct` holds single images: its record (`volume_features`) has one `hu` and
`slice_spacing` (mm) instead of the pair.
"""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from common.errors import UserError
from ipv2.ct_io.volume import hu_to_int16

__all__ = [
    "hu_to_int16",
    "pair_features",
    "pair_record",
    "place_record",
    "volume_features",
]


def _image() -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=(None, None), dtype=np.int16, encoding="zlib")


def _place() -> dict[str, Any]:
    return {
        "spacing_mm": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        "patient": tfds.features.Text(),
        "name": tfds.features.Text(),
        "slice": tfds.features.Scalar(dtype=np.int32),
    }


def pair_features(*, has_truth: bool) -> tfds.features.FeaturesDict:
    """Returns the features of a (lq, gt) record.

    Args:
      has_truth: whether the record also holds `truth`.

    Returns:
      The features, for `tfds.core.DatasetInfo`.
    """
    images = ("lq", "gt", "truth") if has_truth else ("lq", "gt")
    return tfds.features.FeaturesDict({key: _image() for key in images} | _place())


def volume_features() -> tfds.features.FeaturesDict:
    """Returns the features of a record with a single image, `hu`."""
    return tfds.features.FeaturesDict(
        {"hu": _image(), "slice_spacing": tfds.features.Scalar(dtype=np.float32)}
        | _place()
    )


def pair_record(
    *,
    lq: Any,
    gt: Any,
    truth: Any = None,
    spacing_mm: Any,
    patient: str,
    name: str,
    slice_index: int,
) -> dict[str, Any]:
    """Returns one checked record of `pair_features`.

    Args:
      lq: low-dose slice, (h, w), HU.
      gt: normal-dose slice, (h, w), HU.
      truth: (h, w), HU, or None for a record without it.
      spacing_mm: (row, column); None if it is unknown.
      patient: name of the patient, for the splits.
      name: name of the volume.
      slice_index: index along the volume's normal.

    Returns:
      The record; it holds `truth` only if one is given.

    Raises:
      UserError: The images differ in size, or do not fit int16.
    """
    images = {"lq": lq, "gt": gt} | ({} if truth is None else {"truth": truth})
    shapes = {key: np.shape(image) for key, image in images.items()}
    if len(set(shapes.values())) != 1 or len(shapes["lq"]) != 2:
        raise UserError(
            f"{name}, slice {slice_index}: the images of a pair must be 2-D and of one "
            f"size, got {shapes}. Resample one to the other's grid, or remove the pair."
        )
    return {
        key: hu_to_int16(image, name=f"{name}, slice {slice_index}, {key}")
        for key, image in images.items()
    } | place_record(
        spacing_mm=spacing_mm, patient=patient, name=name, slice_index=slice_index
    )


def place_record(
    *, spacing_mm: Any, patient: str, name: str, slice_index: int
) -> dict[str, Any]:
    """Returns the part of a record that identifies its slice.

    A spacing of None is stored as NaN, so that nothing mistakes it for a length.
    """
    unknown = (np.nan, np.nan)
    spacing = np.asarray(unknown if spacing_mm is None else spacing_mm, np.float32)
    if spacing_mm is not None and (spacing.shape != (2,) or not np.all(spacing > 0)):
        raise ValueError(
            f"{name}: spacing_mm must be (row, column), both above 0 mm, got "
            f"{spacing_mm}."
        )
    return {
        "spacing_mm": spacing,
        "patient": patient,
        "name": name,
        "slice": np.int32(slice_index),
    }

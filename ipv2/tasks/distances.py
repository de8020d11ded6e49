"""FID and KID of images from their reference: `config.evaluate.features`.

Features are those of whole slices in the lung window, see `feature_extractors`; the
distances, their floors and what they cannot tell are in `measures.distributions`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ipv2.measures.distributions import distribution_distances
from ipv2.measures.evaluation import INPUT, MakeImages, Slices, middle_slice
from ipv2.measures.feature_extractors import extract_features, find_extractor
from ipv2.measures.intervals import resampled_groups
from ipv2.measures.metrics import WINDOWS

WINDOW = "lung"
REFERENCE = "reference"
# Pixels of the image that extractors are tried on.
_TRIED_PX = 64


def check_features(names: Sequence[str] | None) -> None:
    """Tries every extractor on an image, before any work.

    Args:
      names: of extractors; None for none.

    Raises:
      UserError: it is not known, its package or weights are missing, or it raises.
    """
    black = np.full((1, _TRIED_PX, _TRIED_PX), -1024, np.float32)
    for name in names or ():
        extract_features(find_extractor(name), [black], WINDOWS[WINDOW])


def with_reference(batch: Slices, make_images: MakeImages) -> dict[str, Any]:
    """Returns the images of a batch, the reference and the input first."""
    return {
        REFERENCE: batch["reference"],
        INPUT: middle_slice(batch),
        **make_images(batch),
    }


def measure_distances(
    names: Sequence[str],
    batches: Iterator[tuple[Slices, int]],
    make_images: MakeImages,
    patients: Sequence[str],
) -> dict[str, Any]:
    """Returns {extractor: {image: distances from the reference}}.

    Args:
      names: of extractors.
      batches: prepared slices, see `evaluation.prepared_batches`.
      make_images: makes the images of a batch.
      patients: of each slice.

    Returns:
      The numbers of `DistributionDistances` with `window` and `note`. Where there are
      too few slices, numbers are None and `note` says why.
    """
    extractors = {name: find_extractor(name) for name in names}
    parts: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}
    for batch, count in batches:
        images = with_reference(batch, make_images)
        for name, extractor in extractors.items():
            for image, values in images.items():
                hu = np.asarray(values, np.float32)[:count]
                found = extract_features(extractor, [hu], WINDOWS[WINDOW])
                parts[name].setdefault(image, []).append(found)
    _, groups = resampled_groups(patients)
    return {
        name: _distances({k: np.concatenate(v) for k, v in by_image.items()}, groups)
        for name, by_image in parts.items()
    }


def _distances(
    features: Mapping[str, np.ndarray], groups: Sequence[str]
) -> dict[str, dict[str, Any]]:
    reference = features[REFERENCE]
    return {
        image: _from(reference, values, groups)
        for image, values in features.items()
        if image != REFERENCE
    }


def _from(
    reference: np.ndarray, values: np.ndarray, groups: Sequence[str]
) -> dict[str, Any]:
    keys = ("fid", "fid_held_out", "fid_floor", "kid_held_out")
    none = {"value": None, "low": None, "high": None}
    try:
        found = distribution_distances(values, reference, groups)._asdict()
    except ValueError as error:  # too few slices
        return {
            "window": WINDOW,
            "images": len(values),
            "features": values.shape[1],
            **dict.fromkeys(keys),
            "kid": none,
            "kid_floor": none,
            "note": str(error),
        }
    return {
        "window": WINDOW,
        "images": found["images"],
        "features": found["features"],
        **{key: found[key] for key in keys},
        "kid": found["kid"]._asdict(),
        "kid_floor": found["kid_floor"]._asdict(),
        "note": " ".join(found["warnings"]),
    }

"""Mean profiles across vessels and pleura over the slices that a report shows."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ipv2.measures.full_measures import EDGES_PX
from ipv2.measures.sharpness import edge_profiles

Images = Mapping[str, Float[np.ndarray, "h w"]]
_profiles = jax.jit(edge_profiles)


class Profile(NamedTuple):
    """A mean profile from dark to bright.

    Attributes:
      at: distance from the middle of the reference's edge.
      unit: of the distance: mm, or pixels where their size is not known.
      hu: mean of the image there.
    """

    at: Float[np.ndarray, " k"]
    unit: str
    hu: Float[np.ndarray, " k"]


class Slice(NamedTuple):
    """A slice to find edges in.

    Attributes:
      images: by name, of one size; the reference is among them.
      lung: rough mask of the reference's lungs.
      pixel_mm: size of a pixel; None if it is not known.
    """

    images: Images
    lung: Bool[np.ndarray, "h w"]
    pixel_mm: float | None


def mean_profiles(
    slices: Sequence[Slice], reference: str
) -> dict[str, dict[str, Profile]]:
    """Returns {edge: {image: profile}}; an edge without enough points has no image.

    Slices of another size than the first, and of fewer than 96 pixels, do not count;
    neither do images that not every slice has.

    Args:
      slices: with an aligned reference.
      reference: its name among the images.
    """
    if not slices:
        return {}
    shape = slices[0].lung.shape
    alike = [one for one in slices if one.lung.shape == shape]
    if min(shape) < EDGES_PX:
        return {}
    names = functools.reduce(
        lambda kept, one: [name for name in kept if name in one.images],
        alike,
        list(slices[0].images),
    )
    found: dict[str, dict[str, Profile]] = {}
    for name in names:
        for edge, profile in _mean_profile(alike, name, reference).items():
            found.setdefault(edge, {})[name] = profile
    return found


def _mean_profile(
    slices: Sequence[Slice], image: str, reference: str
) -> dict[str, Profile]:
    """Returns the profile across each edge that has enough points."""
    stacked = (
        np.stack([one.images[name] for one in slices]) for name in (image, reference)
    )
    lung = np.stack([one.lung for one in slices])
    sizes = [one.pixel_mm for one in slices]
    known = [size for size in sizes if size is not None]
    scale, unit = (
        (float(np.mean(known)), "mm") if len(known) == len(sizes) else (1.0, "pixels")
    )
    found = {}
    measured = _profiles(*(jnp.asarray(a, jnp.float32) for a in stacked), lung)
    for edge, one in measured.items():
        hu = np.asarray(one.image_hu)
        weight = np.where(np.isfinite(hu[:, 0]), np.asarray(one.points), 0)
        if weight.any():
            mean = np.average(np.nan_to_num(hu), axis=0, weights=weight)
            found[edge] = Profile(np.asarray(one.at_px) * scale, unit, mean)
    return found

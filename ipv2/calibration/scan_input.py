"""Checks what a calibration is given: images, pixel sizes, doses, tube currents."""

from typing import Any

import numpy as np

from common.errors import UserError
from ipv2.calibration import flat_patches
from ipv2.kernels import photon_noise


def checked(
    images_hu: tuple[Any, ...], spacing_mm: Any, dose: Any, relative_current: Any
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Returns the (b, h, w) slices of each image, (b,) pixel sizes, and (b,) doses.

    Args:
      images_hu: one image, or (low, normal); see `calibrate` for all arguments.
      spacing_mm: size of the pixels.
      dose: dose of each image.
      relative_current: tube currents, which multiply the doses.

    Raises:
      UserError: The input is not HU or does not fit together, or a pair has no dose.
    """
    images = [_checked(image, spacing_mm) for image in images_hu]
    if len(images) > 2 or images[0].shape != images[-1].shape:
        raise UserError(
            "a pair must be (low, normal), two images of one shape; got "
            f"{[image.shape for image in images]}."
        )
    batch = images[0].shape[:-2]
    spacing = photon_noise.slice_spacing(spacing_mm, batch)
    doses = _doses(dose, len(images) == 2)
    currents = _currents(relative_current, batch, len(images))
    return (
        [image.reshape(-1, *image.shape[-2:]) for image in images],
        np.asarray(spacing, np.float64),
        [one * factors for one, factors in zip(doses, currents, strict=True)],
    )


def _currents(
    relative_current: Any, batch: tuple[int, ...], images: int
) -> list[np.ndarray]:
    """Returns the tube currents of each image's slices, flat."""
    given = relative_current
    if given is None:
        given = 1.0
    each = given if isinstance(given, tuple) else (given,) * images
    try:
        if len(each) != images:
            raise ValueError(
                f"relative_current: got {len(each)} arrays for {images} images."
            )
        return [
            np.asarray(photon_noise.slice_current(one, batch), np.float64)
            for one in each
        ]
    except ValueError as error:
        raise UserError(str(error)) from error


def _checked(image_hu: Any, spacing_mm: Any) -> np.ndarray:
    image = np.asarray(image_hu)
    try:
        photon_noise.check_image(image)
        photon_noise.slice_spacing(spacing_mm, image.shape[:-2])
    except ValueError as error:
        raise UserError(str(error)) from error
    if min(image.shape[-2:]) < 2 * flat_patches.SIZE:
        raise UserError(
            f"image_hu: got {image.shape[-2:]} pixels, accepted: at least twice the "
            f"{flat_patches.SIZE} x {flat_patches.SIZE} pixels of a patch."
        )
    return image


def _doses(dose: Any, pair: bool) -> tuple[float, ...]:
    if pair and dose is None:
        raise UserError(
            "dose is missing: a pair needs that of its low-dose image, as a fraction "
            "of normal dose (0.25 for a quarter), or (low, normal)."
        )
    doses = np.atleast_1d(np.asarray(1.0 if dose is None else dose, float))
    if pair and doses.size == 1:
        doses = np.append(doses, 1.0)
    if doses.size != 1 + pair or not np.all(doses > 0) or doses[0] > 1:
        raise UserError(
            f"dose = {dose}; fractions of normal dose in (0, 1], "
            + ("(low, normal)." if pair else "one number.")
        )
    if pair and not doses[0] < doses[1]:
        raise UserError(f"dose = {dose}; the first image of a pair is the low dose.")
    return tuple(float(value) for value in doses)

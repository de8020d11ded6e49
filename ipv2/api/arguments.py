"""Checks the arguments of a call; turns arrays into scans, and scans back."""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from common.errors import UserError
from ipv2.volumes.scan import Scan

Image = TypeVar("Image", Scan, np.ndarray, jax.Array)
"""The result has the type of the argument."""

SpacingMm: TypeAlias = float | tuple[float, ...] | None
"""One number, (row, column) or (slice, row, column), in mm; None: not known."""

# Turns a scan into a result of the type that was given.
Back: TypeAlias = Callable[[Scan], Any]

# Keys of the command line that are arguments of a call.
_KEY = re.compile(
    r"(?:--)?config\.(?:data|purify)"
    r"\.(series|window|pixel_mm|gaps|trust_hu|match|volume)\b"
)


@contextlib.contextmanager
def named_as_arguments() -> Iterator[None]:
    """Puts the names of arguments in place of config keys in messages about files."""
    try:
        yield
    except UserError as error:
        raise UserError(_KEY.sub(r"\1", str(error))) from error


def take_image(
    image: Any,
    *,
    spacing_mm: Any = None,
    what: str = "image",
) -> tuple[Scan, Back]:
    """Returns an image as a scan of HU, and a function that turns scans back.

    Args:
      image: a scan or an array.
      spacing_mm: the spacing of an array; see `SpacingMm`.
      what: the image's name in messages.

    Raises:
      TypeError: the image is neither.
      ValueError: the image holds no HU, or a spacing is given with a scan.
    """
    if isinstance(image, Scan):
        if spacing_mm is not None:
            raise ValueError(
                f"spacing_mm: got {spacing_mm} with a scan, which has a spacing; give "
                "pixel_mm= to ipv2.read_scan if the scan's file does not state it"
            )
        if image.unit != "HU":
            raise ValueError(
                f"{what}: {image.name} holds {image.unit} values, accepted: HU. Read a "
                "PNG with the window=(centre, width) that it was made with"
            )
        return image, lambda result: result
    values = hu_of(image, what)
    scan = Scan(
        hu=values.reshape(-1, *values.shape[-2:]),
        spacing_mm=_spacing(spacing_mm),
        spacing_known=spacing_mm is not None,
        positions_known=False,
        name="array",
    )

    def back(result: Scan) -> Any:
        hu = result.hu.reshape(values.shape)
        array = hu > 0 if result.unit == "mask" else hu
        return jnp.asarray(array) if isinstance(image, jax.Array) else array

    return scan, back


def hu_of(image: Any, what: str) -> np.ndarray:
    """Returns an array of HU as float32.

    Raises:
      TypeError: it is no array.
      ValueError: it is no image, or its values do not look like HU.
    """
    values = array_of(image, what)
    floats = jnp.issubdtype(values.dtype, jnp.floating)
    if not floats and not np.issubdtype(values.dtype, np.signedinteger):
        raise ValueError(
            f"{what}: got {values.dtype}, accepted: HU as floats or signed integers "
            "(air is -1000, water 0); convert grey levels with their window"
        )
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{what}: holds values that are not finite; HU are finite")
    if 0 <= low < high <= 255:
        raise ValueError(
            f"{what}: ranges from {low:g} to {high:g}: grey levels, not HU (air is "
            "-1000, water 0). Convert with the window the image was made with"
        )
    return values


def array_of(image: Any, what: str) -> np.ndarray:
    """Returns an array of one or more slices as NumPy.

    Raises:
      TypeError: it is no array.
      ValueError: it has another number of axes, or no pixel.
    """
    if not isinstance(image, np.ndarray | jax.Array):
        raise TypeError(
            f"{what}: got {type(image).__name__}, accepted: a scan (ipv2.read_scan), "
            "or an array of HU (NumPy or JAX)"
        )
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(
            f"{what}: got shape {image.shape}, accepted: (rows, columns) or (slices, "
            "rows, columns)"
        )
    return np.asarray(image)


def require_spacing(scan: Scan) -> None:
    """Raises ValueError unless the size of a pixel is known."""
    if not scan.spacing_known:
        raise ValueError(
            "spacing_mm: missing, accepted: the size of a pixel in mm, which decides "
            "how much the patient attenuates (DICOM has it as PixelSpacing). For a "
            "file that does not state it: ipv2.read_scan(path, pixel_mm=0.8)"
        )


def require_whole(key: str, value: Any, at_least: int) -> None:
    """Raises ValueError unless a value is a whole number of at least `at_least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < at_least:
        raise ValueError(
            f"{key}: got {value!r}, accepted: a whole number, at least {at_least}"
        )


def fields_of(
    params: Callable[..., Any], function: str, options: dict[str, Any], **given: Any
) -> Any:
    """Returns a dataclass made of arguments and options of a call.

    Args:
      params: the dataclass.
      function: the call's name, for messages.
      options: the fields that are options of the call, by name.
      **given: the fields that are arguments of the call.

    Raises:
      TypeError: an option is no field.
      ValueError: the dataclass does not accept a value.
    """
    # Images are in HU, so `units` is no option.
    accepted = set(inspect.signature(params).parameters) - {*given, "units"}
    if unknown := sorted(set(options) - accepted):
        raise TypeError(
            f"{function} takes no {', '.join(unknown)}; accepted: "
            f"{', '.join(sorted(accepted))}"
        )
    return params(**given, **options)


def after(scan: Scan, done: str) -> str:
    """Returns the scan's derivation description with one more step at its end."""
    return "; ".join(filter(None, (scan.derivation_description, done)))


def _spacing(spacing_mm: Any) -> tuple[float, float, float]:
    if spacing_mm is None:
        return (1.0, 1.0, 1.0)
    values = np.atleast_1d(np.asarray(spacing_mm, float))
    valid = values.ndim == 1 and 1 <= len(values) <= 3
    if not valid or not ((values > 0) & (values < np.inf)).all():
        raise ValueError(
            f"spacing_mm: got {spacing_mm}, accepted: mm above 0: one number, (row, "
            "column) or (slice, row, column)"
        )
    row, column = values[-2:] if len(values) > 1 else (values[0], values[0])
    return (float(values[0]) if len(values) == 3 else 1.0, float(row), float(column))

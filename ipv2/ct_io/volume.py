"""CT volumes: HU, geometry, and the metadata to write the file back.

Conventions: arrays are (slices, rows, columns), in the order of the stored grid's third
axis. `spacing_mm` follows the array: (slice, row, column). `direction` and `origin_mm`
follow SimpleITK: x, y, z in the patient's system. They are kept as stored: a coronal or
flipped volume is not reoriented. For a DICOM series the third axis is the normal, row x
column, and slices ascend along it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from pydicom import Dataset

from common.errors import UserError
from ipv2.ct_io.dicom_header import text_of

PADDING_HU = -1024.0
"""The value of pixels outside the field of view."""

Unit: TypeAlias = Literal["HU", "grey", "mask"]
Format: TypeAlias = Literal[
    "dicom-series", "dicom", "nifti", "mha", "mhd", "nrrd", "png"
]

_INT16 = np.iinfo(np.int16)

Gaps: TypeAlias = Literal["refuse", "allow"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How files are read. Results depend on these options.

    Attributes:
      series: for a folder with several series: the SeriesInstanceUID, or the beginning
        of it or of the SeriesDescription; '' for a folder with one series.
      window: for PNG: (centre, width) in HU of the window it was made with. Black is
        centre - width/2, white is centre + width/2. None: grey levels.
      pixel_mm: size of a square pixel for files that do not state it; 0: unknown. A
        size that a file states takes precedence.
      gaps: for a DICOM series with unevenly spaced slices: 'refuse', or 'allow' for
        work slice by slice.
      trust_hu: whether to accept values as HU even if they do not look like HU.
    """

    series: str = ""
    window: tuple[float, float] | None = None
    pixel_mm: float = 0.0
    gaps: Gaps = "refuse"
    trust_hu: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file or folder that was left out, with the reason."""

    path: Path
    reason: str


# eq=False: equality of arrays is not one truth value.
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A stack of slices without its values.

    Attributes:
      spacing_mm: (slice, row, column): the distance between neighbours along each axis
        of the values.
      direction: nine cosines, row-major, as `SimpleITK.Image.GetDirection`.
      origin_mm: centre of the first voxel (x, y, z).
      positions_mm: (slices, 3), centre of each slice's first voxel, (x, y, z); None if
        origin, direction and spacing give it.
      uneven: how the slices depart from an even stack, in words; '' if they do not.
      header: for DICOM, the header of the first slice.
      tags: for other formats, the file's tags under SimpleITK's keys.
      unit: unit of the values.
      spacing_known: False if neither the file nor the reader's options state the
        spacing; `spacing_mm` is then 1 in the plane.
      spacing_stated: whether the file itself states the spacing; otherwise it is not
        written.
      positions_known: False if the file states no position, and for PNG.
      name: name for messages and outputs: that of the file or folder, without
        extension.
      format: format of the file that was read, or that will be written.
      paths: files from which the volume was read, in the order of the slices.
      integer: whether the file held integers; they are written back as int16.
      bits: 8 or 16 for PNG, else 16.
      window: (centre, width) in HU of the window of grey levels (PNG).
      relative_current: (slices,) exposure of each slice over the series' mean, from a
        DICOM series; None if the file does not state it, see `tube_current`.
      left_out: files of the volume's folder that are not part of it, with reasons.
    """

    spacing_mm: tuple[float, float, float]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    positions_mm: np.ndarray | None = None
    uneven: str = ""
    header: Dataset | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unit: Unit = "HU"
    spacing_known: bool = True
    spacing_stated: bool = True
    positions_known: bool = True
    name: str = "volume"
    format: Format = "mha"
    paths: tuple[Path, ...] = ()
    integer: bool = False
    bits: int = 16
    window: tuple[float, float] | None = None
    relative_current: np.ndarray | None = None
    left_out: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        """Checks the spacing, on which every reader and writer relies."""
        if len(self.spacing_mm) != 3 or not all(s > 0 for s in self.spacing_mm):
            raise ValueError(
                f"{self.name}: spacing_mm must be (slice, row, column), above 0 mm, "
                f"got {self.spacing_mm}."
            )

    @property
    def normal(self) -> np.ndarray:
        """Unit vector (x, y, z) from one slice to the next."""
        return np.asarray(self.direction).reshape(3, 3)[:, 2]

    @property
    def description(self) -> str:
        """SeriesDescription, '' if there is none."""
        return "" if self.header is None else text_of(self.header, "SeriesDescription")

    def position_mm(self, index: int) -> np.ndarray:
        """Returns the centre (x, y, z) of a slice's first pixel."""
        if self.positions_mm is not None:
            return self.positions_mm[index]
        return np.asarray(self.origin_mm) + index * self.spacing_mm[0] * self.normal

    def require_hu(self) -> None:
        """Raises UserError unless the volume is in HU."""
        if self.unit != "HU":
            raise UserError(
                f"{self.name}: holds {self.unit} values, HU are needed. For a PNG, "
                "state the window it was made with: centre and width in HU."
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Volume(Grid):
    """A stack of slices in memory.

    Attributes:
      hu: float32 (slices, rows, columns). HU if `unit` is 'HU'; grey levels from 0 to
        2**bits - 1 if it is 'grey'; 0 and 1 if it is 'mask'.
      headers: for a DICOM series, the header of each slice.
    """

    hu: np.ndarray
    headers: tuple[Dataset, ...] = ()

    def __post_init__(self) -> None:
        """Checks shapes."""
        super().__post_init__()
        if self.hu.ndim != 3 or self.hu.dtype != np.float32:
            raise ValueError(
                f"{self.name}: hu must be float32 (slices, rows, columns), got "
                f"{self.hu.dtype} of shape {self.hu.shape}."
            )
        if self.headers and len(self.headers) != len(self.hu):
            raise ValueError(
                f"{self.name}: {len(self.headers)} headers for {len(self.hu)} slices."
            )
        if self.positions_mm is not None and len(self.positions_mm) != len(self.hu):
            raise ValueError(
                f"{self.name}: {len(self.positions_mm)} positions for {len(self.hu)} "
                "slices."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns = self.hu.shape
        return slices, rows, columns

    def take(self, indices: Sequence[int]) -> "Volume":
        """Returns the slices of ascending indices, at their positions.

        Raises:
          UserError: The indices have gaps, and the format only holds evenly spaced
            slices.
        """
        first, last = indices[0], indices[-1]
        own = self.positions_mm
        if own is None and list(indices) != list(range(first, last + 1)):
            raise UserError(
                f"{self.name}: the slices that have a partner ({first} to {last}) are "
                "not one piece, so they are no volume. Pair by index "
                "(--config.data.match=index), or resample one of the two."
            )
        x, y, z = (float(v) for v in self.position_mm(first))
        several = len(self.paths) > 1
        current = self.relative_current
        return dataclasses.replace(
            self,
            hu=self.hu[list(indices)],
            origin_mm=(x, y, z),
            positions_mm=None if own is None else own[list(indices)],
            relative_current=None if current is None else current[list(indices)],
            paths=tuple(self.paths[i] for i in indices) if several else self.paths,
            headers=tuple(self.headers[i] for i in indices) if self.headers else (),
            header=self.headers[first] if self.headers else self.header,
        )


class Slice(NamedTuple):
    """A slice as it was read.

    Attributes:
      hu: float32 (rows, columns), padding at PADDING_HU.
      stored: the same with the file's values of padding, in HU: mostly -2000 or -3024.
      header: header of a DICOM slice.
    """

    hu: np.ndarray
    stored: np.ndarray
    header: Dataset | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SliceSource(Grid):
    """A stack of slices on disk; see `ct_io.open_volume`.

    Attributes:
      shape: (slices, rows, columns).
      read: reads the slice of an index from disk. All values are finite. Raises
        UserError if the file is damaged.
    """

    shape: tuple[int, int, int]
    read: Callable[[int], Slice]

    def load(self) -> Volume:
        """Reads the whole volume into memory."""
        hu = np.empty(self.shape, np.float32)
        headers = []
        for index in range(len(hu)):
            hu[index], _, header = self.read(index)
            if header is not None:
                headers.append(header)
        grid = {f.name: getattr(self, f.name) for f in dataclasses.fields(Grid)}
        return Volume(hu=hu, headers=tuple(headers), **grid)


def hu_to_int16(hu: Any, *, name: str) -> np.ndarray:
    """Rounds HU to the nearest integer (ties to even) as int16.

    Args:
      hu: real numbers of any shape, HU.
      name: name of the array for messages, such as a file's name.

    Returns:
      int16 array of the same shape.

    Raises:
      UserError: A value is not finite, or does not fit int16: values never wrap and are
        never clipped.
    """
    values = np.asarray(hu)
    if values.dtype == np.int16:
        return values
    check_finite(values, name=name)
    rounded = np.rint(values)
    if values.size and (rounded.min() < _INT16.min or rounded.max() > _INT16.max):
        raise UserError(
            f"{name}: values from {values.min():g} to {values.max():g}; HU are stored "
            f"as int16, {_INT16.min} to {_INT16.max}. Check the image's unit and its "
            "rescale slope and intercept."
        )
    return rounded.astype(np.int16)


def check_finite(values: np.ndarray, *, name: str) -> None:
    """Raises UserError if a value is NaN or infinite."""
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise UserError(
            f"{name}: {bad} of {values.size} pixels are not finite (NaN or infinity); "
            "HU are finite numbers. Repair or remove the image."
        )

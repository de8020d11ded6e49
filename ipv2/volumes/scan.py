"""A CT scan in memory, with what its file marks as padding."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ipv2.ct_io import PADDING_HU, Grid, Slice, SliceSource, Volume
from ipv2.ct_io.dicom_padding import ALWAYS_PADDING_HU


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scan(Volume):
    """A CT scan: HU, geometry, and the metadata of its file.

    `ipv2.read_scan` returns it. To make one from a float32 array (slices, rows,
    columns): `Scan(hu=hu, spacing_mm=(5.0, 0.7, 0.7))`.

    Attributes:
      padding_hu: float32 (slices, rows, columns): the values that mark padding pixels,
        mostly -3024 or -2000 HU, and NaN for all other pixels; `hu` is PADDING_HU for
        padding. None if the file marks none.
      series_description: for DICOM; '' for that of the header.
      derivation_description: for DICOM: the changes to the scan since it was read.
    """

    padding_hu: np.ndarray | None = None
    series_description: str = ""
    derivation_description: str = ""

    def __post_init__(self) -> None:
        """Checks shapes."""
        super().__post_init__()
        padding = self.padding_hu
        if padding is not None and padding.shape != self.hu.shape:
            raise ValueError(
                f"{self.name}: padding_hu has shape {padding.shape}, hu "
                f"{self.hu.shape}."
            )

    def __repr__(self) -> str:
        """Describes the scan in a line."""
        size = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{mm:.4g}" for mm in self.spacing_mm)
        known = "" if self.spacing_known else " (not known)"
        return (
            f"Scan({self.name!r}: {size}, spacing {spacing} mm{known}, {self.unit} "
            f"{self.hu.min():g} to {self.hu.max():g})"
        )

    def take(self, indices: Sequence[int]) -> "Scan":
        """Returns the slices of ascending indices, at their positions."""
        padding = self.padding_hu
        plain = dataclasses.replace(self, padding_hu=None)
        taken = cast(Scan, Volume.take(plain, indices))
        return dataclasses.replace(
            taken, padding_hu=None if padding is None else padding[list(indices)]
        )

    @property
    def stored(self) -> np.ndarray:
        """The values to write to a file: `hu`, with the values that mark padding."""
        padding = self.padding_hu
        if padding is None:
            return self.hu
        return np.where(np.isnan(padding), self.hu, padding)

    def source(self) -> SliceSource:
        """Returns a source that reads the scan slice by slice, as from a file."""
        stored = self.stored

        def read(index: int) -> Slice:
            header = self.headers[index] if self.headers else None
            return Slice(hu=self.hu[index], stored=stored[index], header=header)

        return SliceSource(shape=self.shape, read=read, **_grid_of(self))


def load_scan(source: SliceSource) -> Scan:
    """Reads a volume into memory."""
    hu = np.empty(source.shape, np.float32)
    padding, headers = None, []
    for index in range(len(hu)):
        hu[index], stored, header = source.read(index)
        marked = stored != hu[index]
        if marked.any():
            if padding is None:
                padding = np.full(source.shape, np.nan, np.float32)
            padding[index][marked] = stored[marked]
        if header is not None:
            headers.append(header)
    return Scan(hu=hu, padding_hu=padding, headers=tuple(headers), **_grid_of(source))


def with_result(scan: Scan, stored: np.ndarray, **changes: Any) -> Scan:
    """Returns the scan with the values of a result of `stored_hu.restored`.

    Args:
      scan: the scan from which the result was made.
      stored: float32 (slices, rows, columns) HU; padding as a file marks it.
      **changes: values of other fields.
    """
    marked = stored <= ALWAYS_PADDING_HU
    padding = np.where(marked, stored, np.nan).astype(np.float32)
    return dataclasses.replace(
        scan,
        hu=np.where(marked, PADDING_HU, stored).astype(np.float32),
        padding_hu=padding if marked.any() else None,
        **changes,
    )


def _grid_of(grid: Grid) -> dict[str, Any]:
    return {f.name: getattr(grid, f.name) for f in dataclasses.fields(Grid)}

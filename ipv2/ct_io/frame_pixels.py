"""Reads the pixel data of a DICOM file frame by frame, as unchanged bytes.

DICOM PS3.5, 8 and A.4: uncompressed frames follow each other; compressed ones lie in
fragments, with or without tables of the frames' offsets.
"""

import dataclasses
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from pydicom import Dataset
from pydicom.encaps import (
    generate_fragments,
    generate_frames,
    parse_basic_offsets,
    parse_fragments,
)

from common.errors import UserError
from ipv2.ct_io.dicom_header import COPY_AGAIN

_UNDEFINED = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True, kw_only=True)
class FramePixels:
    """The pixel data of a file.

    Attributes:
      path: path for messages.
      file: open file, positioned at the value of the pixel data.
      header: all elements before the pixels.
      count: number of frames that the header states.
      encapsulated: whether the transfer syntax compresses pixels.
      vr: VR of the pixel data.
      length: length of the pixel data in bytes, 0xFFFFFFFF if it is encapsulated.
    """

    path: Path
    file: IO[bytes]
    header: Dataset
    count: int
    encapsulated: bool
    vr: str
    length: int

    @classmethod
    def find(
        cls, path: Path, file: IO[bytes], header: Dataset, *, encapsulated: bool
    ) -> "FramePixels":
        """Returns the pixel data at the present position of a file.

        Args:
          path: path for messages.
          file: open file, positioned after the header.
          header: header of the file.
          encapsulated: whether the transfer syntax compresses pixels.

        Raises:
          UserError: There is no pixel data.
          ValueError: NumberOfFrames is no number.
        """
        implicit, little = header.original_encoding
        order = "<" if little else ">"
        start = file.read(8)
        pixels = (0x7FE0, 0x0010)
        if len(start) < 8 or struct.unpack(f"{order}HH", start[:4]) != pixels:
            raise UserError(f"{path}: a DICOM file without pixels, or cut before them.")
        length = start[4:] if implicit else file.read(4)
        count = int(header.get("NumberOfFrames") or 1)
        if count < 1:
            raise UserError(f"{path}: {count} frames (NumberOfFrames). {COPY_AGAIN}")
        return cls(
            path=path,
            file=file,
            header=header,
            count=count,
            encapsulated=encapsulated,
            vr="OW" if implicit else start[4:6].decode("latin-1"),
            length=struct.unpack(f"{order}L", length)[0],
        )

    def frames(self) -> Iterator[bytes]:
        """Yields the bytes of each frame, with one frame in memory.

        Raises:
          UserError: The file lacks pixels that its header states.
        """
        return self._encapsulated() if self.encapsulated else self._native()

    def _native(self) -> Iterator[bytes]:
        rows, columns, bits, samples = (
            int(self.header.get(name) or default)
            for name, default in (
                ("Rows", 0),
                ("Columns", 0),
                ("BitsAllocated", 0),
                ("SamplesPerPixel", 1),
            )
        )
        size, rest = divmod(rows * columns * samples * bits, 8)
        if not size or rest:
            raise UserError(
                f"{self.path}: {rows} x {columns} pixels of {bits} bits; CT slices "
                "have rows and columns of 8 or 16 bits."
            )
        start = self.file.tell()
        found = min(self.length, self.file.seek(0, os.SEEK_END) - start)
        if found < size * self.count:
            raise UserError(
                f"{self.path}: truncated: {found} bytes of pixels where {self.count} "
                f"frames of {size} bytes need {size * self.count}. {COPY_AGAIN}"
            )
        self.file.seek(start)
        for _ in range(self.count):
            yield self.file.read(size)

    def _encapsulated(self) -> Iterator[bytes]:
        start = self.file.tell()
        parse_basic_offsets(self.file)
        count, offsets = parse_fragments(self.file)
        self._check_fragments(offsets)
        if count == self.count:
            # One fragment per frame: the tables, which may be wrong, are not needed.
            frames = generate_fragments(self.file)
        else:
            self.file.seek(start)
            tables = (
                self.header.get("ExtendedOffsetTable"),
                self.header.get("ExtendedOffsetTableLengths"),
            )
            frames = generate_frames(
                self.file,
                number_of_frames=self.count,
                extended_offsets=cast(tuple[bytes, bytes], tables)
                if all(tables)
                else None,
            )
        found = 0
        for found, pixels in enumerate(frames, start=1):
            if found > self.count or not pixels:
                break
            yield pixels
        if found != self.count:
            raise UserError(
                f"{self.path}: truncated or damaged: its pixels do not make the "
                f"{self.count} frames that it states (NumberOfFrames). {COPY_AGAIN}"
            )

    def _check_fragments(self, offsets: list[int]) -> None:
        """Raises UserError unless the last fragment ends within the file."""
        here = self.file.tell()
        end = self.file.seek(0, os.SEEK_END)
        last = _UNDEFINED
        if offsets:
            self.file.seek(offsets[-1] + 4)
            last = offsets[-1] + 8 + int.from_bytes(self.file.read(4), "little")
        self.file.seek(here)
        if not offsets or last > end:
            raise UserError(f"{self.path}: truncated in its pixels. {COPY_AGAIN}")

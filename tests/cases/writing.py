"""Series for the cases, written with pydicom, independent of the readers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset

from tests.cases.case import Build, Truth
from tests.cases.source import Source, save

Edit = Callable[[FileDataset, int], object]


def write(
    folder: Path,
    slices: Sequence[FileDataset],
    hu: np.ndarray,
    names: Sequence[str] = (),
    **how: bool,
) -> dict[str, np.ndarray]:
    """Writes slices under names, by default 001.dcm and on; returns their HU."""
    names = names or [f"{index + 1:03d}.dcm" for index in range(len(slices))]
    for data, name in zip(slices, names, strict=True):
        save(data, folder / name, **how)
    return dict(zip(names, np.asarray(hu, np.float64), strict=True))


def plain(folder: Path, source: Source) -> Truth:
    """The plain series."""
    return write(folder, source.slices(), source.hu)


def each(edit: Edit, *, count: int | None = None) -> Build:
    """The plain series, or the first slices of it, with every header edited."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()[:count]
        for index, data in enumerate(slices):
            edit(data, index)
        return write(folder, slices, source.hu[:count])

    return build


def setting(*, count: int | None = None, **values: object) -> Build:
    """The plain series with attributes of every slice set."""

    def edit(data: FileDataset, index: int) -> None:
        for key, value in values.items():
            setattr(data, key, value)

    return each(edit, count=count)


def without(*keywords: str, count: int | None = None) -> Build:
    """The plain series without some attributes."""

    def edit(data: FileDataset, index: int) -> None:
        for keyword in keywords:
            delattr(data, keyword)

    return each(edit, count=count)


def raw_text(keyword: str, text: str) -> Edit:
    """An edit that writes a text as it is, allowed or not."""

    def edit(data: FileDataset, index: int) -> None:
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        data.add(DataElement(tag, dictionary_VR(tag), text, already_converted=True))

    return edit

"""Files in folders: names, damage, files of other software, links."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.encaps import encapsulate, generate_frames
from pydicom.fileset import FileSet
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from tests.cases.case import Build, Case, Truth
from tests.cases.source import Source, save
from tests.cases.writing import plain, setting, write

_SIDEWAYS = ["0", "1", "0", "0", "0", "-1"]


def under(*names: str) -> Build:
    """The plain series under other names."""
    return lambda folder, source: write(folder, source.slices(), source.hu, names)


def under_uids(folder: Path, source: Source) -> Truth:
    """Files are named by their UIDs, with dots."""
    slices = source.slices()
    return write(folder, slices, source.hu, [str(d.SOPInstanceUID) for d in slices])


def deep(folder: Path, source: Source) -> Truth:
    """Files are deep in folders with long names."""
    parts = [f"a long folder, with spaces & ümläuts {i}" + "x" * 60 for i in range(5)]
    below = Path(*parts)
    truth = plain(folder / below, source)
    return {str(below / name): hu for name, hu in truth.items()}


def damaged(name: str, change: Callable[[bytes], bytes], syntax: UID | None = None):
    """Changes one file of the series, after compression if there is any."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        if syntax:
            for data in slices:
                data.compress(syntax)
        truth = write(folder, slices, source.hu)
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return truth

    return build


def cut_stream(syntax: UID) -> Build:
    """Cuts the codestream inside a valid DICOM file."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        for data in slices:
            data.compress(syntax)
        (frame,) = generate_frames(slices[3].PixelData, number_of_frames=1)
        cut = frame[: len(frame) * 3 // 10 * 2]
        slices[3].PixelData = encapsulate([cut])
        slices[3]["PixelData"].is_undefined_length = True
        return write(folder, slices, source.hu)

    return build


def pixel_bytes(change: Callable[[bytes], bytes]) -> Build:
    """PixelData shorter or longer than rows times columns."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        slices[3].PixelData = change(slices[3].PixelData)
        return write(folder, slices, source.hu)

    return build


def no_preamble(*, implicit: bool, meta: bool = False) -> Build:
    """As in old archives: no preamble, and mostly no file meta group."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        truth = write(folder, slices, source.hu)
        for name, data in zip(truth, slices, strict=True):
            if meta:
                (folder / name).write_bytes((folder / name).read_bytes()[132:])
                continue
            del data.file_meta
            data.preamble = None
            data.save_as(
                folder / name,
                implicit_vr=implicit,
                little_endian=True,
                enforce_file_format=False,
            )
        return truth

    return build


def with_another(change: Callable[..., object], *, name: str = "007.dcm") -> Build:
    """The plain series, and one more slice that is changed."""

    def build(folder: Path, source: Source) -> Truth:
        truth = plain(folder, source)
        other = copy.deepcopy(source.headers[0])
        other.SOPInstanceUID = generate_uid()
        change(other)
        save(other, folder / name)
        return truth

    return build


def _scout(data) -> None:
    data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    data.ImageOrientationPatient = _SIDEWAYS


def _scout_series(data) -> None:
    _scout(data)
    data.SeriesInstanceUID, data.SeriesDescription = generate_uid(), "Topogram"


def _magnetic(data) -> None:
    data.Modality, data.SOPClassUID = "MR", MRImageStorage
    data.SeriesInstanceUID = generate_uid()


def two_series(folder: Path, source: Source) -> Truth:
    """Two reconstructions of one scan in one folder."""
    second = source.slices()
    uid = generate_uid()
    for data in second:
        data.SeriesInstanceUID, data.SOPInstanceUID = uid, generate_uid()
        data.SeriesDescription = "Other kernel"
    write(folder, second, source.hu, [f"B{i}.dcm" for i in range(len(second))])
    return plain(folder, source)


def with_junk(folder: Path, source: Source) -> Truth:
    """Adds files that other systems leave behind."""
    truth = plain(folder, source)
    for name, content in _JUNK.items():
        (folder / name).write_bytes(content)
    (folder / ".DS_Store").write_bytes(b"x")
    return truth


def dicomdir(folder: Path, source: Source) -> Truth:
    """A medium: DICOMDIR and the folders it names."""
    files = FileSet()
    for data in source.slices():
        files.add(data)
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder)
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.parent != folder)
    names = [str(path.relative_to(folder)) for path in paths]
    return dict(zip(names, source.hu.astype(np.float64), strict=True))


def linked(folder: Path, source: Source) -> Truth:
    """A link to a folder outside the searched one."""
    elsewhere = folder.parents[1] / f"elsewhere_{folder.name}"
    truth = plain(elsewhere, source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(elsewhere, folder)
    return truth


def looped(folder: Path, source: Source) -> Truth:
    """A link to the folder that contains it."""
    truth = plain(folder, source)
    os.symlink(folder, folder / "again")
    return truth


_JUNK = {
    "Thumbs.db": b"\xd0\xcf\x11\xe0" * 100,
    "README.txt": b"hello",
    "report.pdf": b"%PDF-1.4",
    "LICENSE": b"x",
}
_READ: dict[str, Build] = {
    "no_extension": under(*(f"IM{i:04d}" for i in range(6))),
    "names_are_uids": under_uids,
    "capital_dcm": under(*(f"IM{i:04d}.DCM" for i in range(6))),
    "dot_dicom": under(*(f"IM{i:04d}.dicom" for i in range(6))),
    "dot_img": under(*(f"IM{i:04d}.img" for i in range(6))),
    "names_shuffled": under(*(f"{i}.dcm" for i in (3, 0, 5, 1, 4, 2))),
    "deep_folders": deep,
    "dicomdir": dicomdir,
    "pixels_too_long": pixel_bytes(lambda pixels: pixels + b"\0" * 512),
    "linked_folder": linked,
    "looped_folder": looped,
}
_HALF = lambda content: content[: len(content) // 2]  # noqa: E731
_DAMAGED: dict[str, Build] = {
    "last_empty": damaged("006.dcm", lambda content: b""),
    "middle_empty": damaged("003.dcm", lambda content: b""),
    "last_head_destroyed": damaged("006.dcm", lambda c: b"\0" * 200 + c[200:]),
    "pixels_truncated": damaged("004.dcm", _HALF),
    "header_truncated": damaged("004.dcm", lambda content: content[:600]),
    "truncated_by_2": damaged("004.dcm", lambda content: content[:-2]),
    **{
        f"truncated_{name}": damaged("004.dcm", lambda c: c[: len(c) * 7 // 10], syntax)
        for name, syntax in (
            *(("jpeg_ls", JPEGLSLossless), ("jpeg_2000", JPEG2000Lossless)),
            ("rle", RLELossless),
        )
    },
    "stream_cut_jpeg_ls": cut_stream(JPEGLSLossless),
    "stream_cut_jpeg_2000": cut_stream(JPEG2000Lossless),
    "stream_cut_rle": cut_stream(RLELossless),
    "pixels_too_short": pixel_bytes(lambda pixels: pixels[:20000]),
}
_MIXED: dict[str, tuple[Build, str]] = {
    "scout_in_series": (with_another(_scout), "(?i)orientation|localizer"),
    "scout_in_folder": (with_another(_scout_series), "(?i)series|localizer"),
    "two_series": (two_series, "(?i)2 CT series|data.series"),
    "scout_alone": (
        setting(
            count=1,
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            ImageOrientationPatient=_SIDEWAYS,
        ),
        "(?i)localizer|axial",
    ),
    "scout_alone_axial": (
        setting(count=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "(?i)localizer",
    ),
}
_NO_PREAMBLE: dict[str, Build] = {
    "no_preamble_implicit": no_preamble(implicit=True),
    "no_preamble_explicit": no_preamble(implicit=False),
    "no_preamble_with_meta": no_preamble(implicit=False, meta=True),
}
FILES = (
    *(Case(name=name, build=build) for name, build in _READ.items()),
    *(
        Case(name=name, build=build, outcome="refused", says=r"00\d\.dcm")
        for name, build in _DAMAGED.items()
    ),
    *(
        Case(name=name, build=build, outcome="refused", says=says)
        for name, (build, says) in _MIXED.items()
    ),
    # Read, or named as not used: not passed over.
    *(
        Case(name=name, build=build, outcome="either")
        for name, build in _NO_PREAMBLE.items()
    ),
    Case(name="junk", build=with_junk, lists=tuple(_JUNK)),
    Case(name="mr_in_folder", build=with_another(_magnetic), lists=("007.dcm",)),
    Case(
        name="two_series_one_named",
        build=two_series,
        keys={"data.series": "Thorax"},
        tasks=("denoise", "simulate"),
    ),
    Case(
        name="no_preamble_at_end",
        build=lambda folder, source: _without_preamble_at_end(folder, source),
        outcome="either",
        says="006",
    ),
)


def _without_preamble_at_end(folder: Path, source: Source) -> Truth:
    """Only the last slice lost its preamble: without it the series would end early."""
    truth = plain(folder, source)
    (folder / "006.dcm").write_bytes((folder / "006.dcm").read_bytes()[132:])
    return truth

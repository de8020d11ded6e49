"""Formats of CT files by their names."""

from pathlib import Path

from ipv2.ct_io.dicom_header import is_dicom
from ipv2.ct_io.volume import Format

SUFFIXES: dict[str, Format] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".mha": "mha",
    ".mhd": "mhd",
    ".nrrd": "nrrd",
    ".png": "png",
    ".dcm": "dicom",
    ".ima": "dicom",
}
"""The format of each file extension that is read and written."""

IMAGE_IO = {
    "nifti": "NiftiImageIO",
    "mha": "MetaImageIO",
    "mhd": "MetaImageIO",
    "nrrd": "NrrdImageIO",
    "png": "PNGImageIO",
}
"""ITK's name of the reader and writer of a format; DICOM has a separate module."""


def suffix_of(path: Path) -> str:
    """Returns the extension of the format, '' if it is none of SUFFIXES."""
    name = path.name.lower()
    return next((s for s in SUFFIXES if name.endswith(s)), "")


def stem_of(path: Path) -> str:
    """Returns the name without the format's extension: 'a.1' for 'a.1.nii.gz'."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def format_of(path: Path) -> Format | None:
    """Returns a file's format by its extension, or DICOM by its content, or None."""
    if suffix := suffix_of(path):
        return SUFFIXES[suffix]
    return "dicom" if is_dicom(path) else None


def last_line(error: RuntimeError) -> str:
    """Returns the last line of a SimpleITK error, which states the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ").removeprefix("sitk::ERROR: ")

"""The formats of CT files, by their names."""

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
"""File extensions read and written, and what they stand for."""

IMAGE_IO = {
    "nifti": "NiftiImageIO",
    "mha": "MetaImageIO",
    "mhd": "MetaImageIO",
    "nrrd": "NrrdImageIO",
    "png": "PNGImageIO",
}
"""ITK's name for what reads and writes a format; DICOM has a module of its own."""


def suffix_of(path: Path) -> str:
    """The extension that says the format, '' if it is none of SUFFIXES."""
    name = path.name.lower()
    return next((s for s in SUFFIXES if name.endswith(s)), "")


def stem_of(path: Path) -> str:
    """The name without the extension that says the format: 'a.1' of 'a.1.nii.gz'."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def format_of(path: Path) -> Format | None:
    """The format of a file, by its extension or as DICOM by its content; else None."""
    if suffix := suffix_of(path):
        return SUFFIXES[suffix]
    return "dicom" if is_dicom(path) else None


def last_line(error: RuntimeError) -> str:
    """The last line of a SimpleITK error, which is the one that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ").removeprefix("sitk::ERROR: ")

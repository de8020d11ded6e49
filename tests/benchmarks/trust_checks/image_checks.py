"""Checks of a written image file, with nibabel, SimpleITK and Pillow."""

import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import SimpleITK as sitk

from tests.benchmarks.trust_checks.dicom_checks import hu_problems


def file_problems(task: str, source: Path, result: Path, want: np.ndarray) -> list:
    """Returns what is wrong with a file that a task wrote: values, grid, header."""
    kind = result.name.lower()
    if kind.endswith(".png"):
        return _png_problems(source, result, want)
    if kind.endswith((".nii", ".nii.gz")):
        got, problems = _nifti(source, result)
    else:
        got, problems = _meta(source, result)
    return [*hu_problems(task, got, want), *problems]


def _nifti(source: Path, result: Path) -> tuple[np.ndarray, list[str]]:
    before, after = (
        nib.Nifti1Image.from_filename(_lower(path)) for path in (source, result)
    )
    problems = []
    # In mm, whatever the unit. float32 headers hold some seven digits.
    factor = {"micron": 1e-3, "meter": 1e3}
    old, new = (
        np.asarray(image.affine) * factor.get(str(image.header.get_xyzt_units()[0]), 1)
        for image in (before, after)
    )
    known = before.header["sform_code"] or before.header["qform_code"]
    axes = [*range(min(before.ndim, 3)), 3]  # of two dimensions, the third says nothing
    old, new = old[:3, axes], new[:3, axes]
    if known and not np.allclose(old, new, rtol=1e-5, atol=1e-4):
        problems.append(f"affine {new.tolist()}, was {old.tolist()}")
    zooms = zip(
        before.header.get_zooms()[:3], after.header.get_zooms()[:3], strict=False
    )
    if not known and any(abs(a - b) > 1e-4 for a, b in zooms):
        problems.append("voxel sizes changed")
    values = np.asarray(after.dataobj, np.float64)
    values = values.reshape(*(*values.shape, 1)[:3], -1)[..., 0]
    return values.transpose(2, 1, 0), problems


def _lower(path: Path) -> str:
    """Copies the file to a name in small letters, which some readers need."""
    if path.name == path.name.lower():
        return str(path)
    folder = Path(tempfile.mkdtemp(dir=path.parent.parent))
    os.symlink(path, folder / path.name.lower())
    return str(folder / path.name.lower())


def _meta(source: Path, result: Path) -> tuple[np.ndarray, list[str]]:
    before, after = (
        sitk.ReadImage(_lower_set(source)),
        sitk.ReadImage(_lower_set(result)),
    )
    problems = [
        f"{what} {new}, was {old}"
        for what, old, new in (
            ("spacing", before.GetSpacing(), after.GetSpacing()),
            ("origin", before.GetOrigin(), after.GetOrigin()),
            ("direction", before.GetDirection(), after.GetDirection()),
        )
        if not np.allclose(old, new, rtol=1e-6, atol=1e-6)
    ]
    if not _says_spacing(source) and _says_spacing(result):
        problems.append("a spacing is written that was not there")
    return sitk.GetArrayFromImage(after).astype(np.float64), problems


def _lower_set(path: Path) -> str:
    """Does as `_lower`, and copies the data file of an MHD."""
    if path.name == path.name.lower():
        return str(path)
    small = Path(_lower(path))
    for other in path.parent.glob("*.[rR][aA][wW]"):
        os.symlink(other, small.parent / other.name)
    return str(small)


def _says_spacing(path: Path) -> bool:
    head = path.read_bytes()[:4096].decode("latin-1")
    if path.name.lower().endswith(".nrrd"):
        head = head.split("\n\n")[0]
        return "spacings:" in head or "space directions:" in head
    return "ElementSpacing" in head or "ElementSize" in head


def _png_problems(source: Path, result: Path, want: np.ndarray) -> list[str]:
    """Returns changes of the grey levels beyond the shift, or of their bits."""
    before, after = PIL.Image.open(source), PIL.Image.open(result)
    if before.mode != after.mode or before.size != after.size:
        return [f"{after.mode} {after.size}, was {before.mode} {before.size}"]
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    step = 1500 / (255 if before.mode == "L" else 65535)
    inside = (want > -1300) & (want < 100)
    # Half a grey level either way of the 10 HU that were added.
    worst = float(np.abs(change[inside] - 10 / step).max())
    return [f"grey levels off by {worst:.3g}"] if worst > 1.01 else []

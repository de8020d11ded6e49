"""NIfTI, MHA, MHD, NRRD and PNG files, written with SimpleITK, nibabel and Pillow."""

import gzip
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import PIL.Image
import SimpleITK as sitk

from tests.cases.case import Build, Case, Truth
from tests.cases.source import PIXEL_MM, STEP_MM, Source

SPACING = (PIXEL_MM, PIXEL_MM, STEP_MM)
WINDOW = (-600.0, 1500.0)
_AFFINE = np.diag([-PIXEL_MM, -PIXEL_MM, STEP_MM, 1.0])
_MIRRORS = {
    "x": (-1, 0, 0, 0, 1, 0, 0, 0, -1),
    "xy": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "z": (1, 0, 0, 0, 1, 0, 0, 0, -1),
}
_SPACING_LINE = "ElementSpacing = "


def image_of(hu: np.ndarray, kind: Any = np.int16) -> sitk.Image:
    """A SimpleITK image on the common grid."""
    image = sitk.GetImageFromArray(hu.astype(kind))
    image.SetSpacing(SPACING)
    image.SetOrigin((-174.6, -171.9, -98.5))
    return image


def by_sitk(
    name: str,
    *,
    kind: Any = np.int16,
    change: Callable[[np.ndarray], np.ndarray] = lambda hu: hu,
    direction: tuple[float, ...] = (),
    compressed: bool = False,
    as_name: str = "",
    permuted: tuple[int, ...] = (),
) -> Build:
    """Writes a file with SimpleITK under a name that it accepts, and renames it."""

    def build(folder: Path, source: Source) -> Truth:
        folder.mkdir(parents=True, exist_ok=True)
        hu = change(source.hu)
        image = image_of(hu, kind)
        if direction:
            image.SetDirection(direction)
        if permuted:
            image = sitk.PermuteAxes(image, permuted)
        sitk.WriteImage(image, folder / name, compressed)
        if as_name:
            os.rename(folder / name, folder / as_name)
        return {as_name or name: hu.astype(kind).astype(np.float64)}

    return build


def by_nibabel(
    name: str,
    *,
    change: Callable[[np.ndarray], np.ndarray] = lambda hu: hu.astype(np.int16),
    codes: tuple[int, int] = (1, 1),
    affine: np.ndarray = _AFFINE,
    units: str = "mm",
    big_endian: bool = False,
    version: int = 1,
) -> Build:
    """A NIfTI file with codes, units and types of its own; `change` is of x, y, z."""

    def build(folder: Path, source: Source) -> Truth:
        folder.mkdir(parents=True, exist_ok=True)
        values = change(source.hu.transpose(2, 1, 0))
        create = nib.Nifti1Image if version == 1 else nib.Nifti2Image
        header = create.header_class(endianness=">" if big_endian else "<")
        header.set_data_dtype(values.dtype)
        image = create(values, affine, header)
        image.set_sform(affine if codes[0] else None, codes[0])
        image.set_qform(affine if codes[1] else None, codes[1])
        image.header["pixdim"][1:4] = np.abs(np.diag(affine)[:3])
        image.header.set_xyzt_units(units)
        nib.save(image, folder / name)
        return {name: _flat(values)}

    return build


def _flat(values: np.ndarray) -> np.ndarray:
    if values.dtype.names or values.ndim < 2:
        return np.zeros((1, 1, 1))
    plain = values.reshape(*(*values.shape, 1)[:3], -1)[..., 0]
    return plain.astype(np.float64).transpose(2, 1, 0)


def scaled(slope: float) -> Build:
    """Unsigned stored values with scl_slope and scl_inter in the header."""

    def build(folder: Path, source: Source) -> Truth:
        folder.mkdir(parents=True, exist_ok=True)
        header = nib.Nifti1Header()
        header.set_data_dtype(np.uint16)
        header.set_data_shape(source.hu.shape[::-1])
        header.set_sform(_AFFINE, 1)
        header.set_qform(_AFFINE, 1)
        header.set_slope_inter(slope, -1024)
        header["vox_offset"], header["magic"] = 352, b"n+1"
        stored = ((source.hu + 1024) / slope).astype("<u2")
        (folder / "scan.nii").write_bytes(
            header.binaryblock + b"\0" * 4 + stored.tobytes()
        )
        return {"scan.nii": source.hu.astype(np.float64)}

    return build


def edited(build: Build, change: Callable[[Path], object]) -> Build:
    """A file, changed after it was written."""

    def both(folder: Path, source: Source) -> Truth:
        truth = build(folder, source)
        change(folder)
        return truth

    return both


def halved(name: str) -> Build:
    """The first half of a file."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return edited(by_sitk(name), change)


def mhd_line(replace: Callable[[str], str]) -> Build:
    """An MHD whose line of spacing is replaced."""

    def change(folder: Path) -> None:
        path = folder / "scan.mhd"
        lines = path.read_text().splitlines()
        lines = [replace(x) if x.startswith(_SPACING_LINE) else x for x in lines]
        path.write_text("\n".join(line for line in lines if line) + "\n")

    return edited(by_sitk("scan.mhd"), change)


def nrrd(fields: Mapping[str, str], *, endian: str = "<") -> Build:
    """An NRRD written by hand."""

    def build(folder: Path, source: Source) -> Truth:
        folder.mkdir(parents=True, exist_ok=True)
        sizes = " ".join(str(n) for n in source.hu.shape[::-1])
        head = {"type": "short", "dimension": "3"} | dict(fields)
        head |= {"sizes": sizes, "encoding": "raw"}
        head |= {"endian": "little" if endian == "<" else "big"}
        text = "\n".join(["NRRD0004", *(f"{k}: {v}" for k, v in head.items()), "", ""])
        content = text.encode() + source.hu.astype(f"{endian}i2").tobytes()
        (folder / "scan.nrrd").write_bytes(content)
        return {"scan.nrrd": source.hu.astype(np.float64)}

    return build


def png(
    name: str, *, bits: int = 8, mode: str = "", format: str = "PNG", **how: Any
) -> Build:
    """A slice as grey levels of a window."""

    def build(folder: Path, source: Source) -> Truth:
        folder.mkdir(parents=True, exist_ok=True)
        white = 2**bits - 1
        low = WINDOW[0] - WINDOW[1] / 2
        grey = np.clip((source.hu[0] - low) / WINDOW[1] * white, 0, white)
        grey = grey.astype(np.uint8 if bits == 8 else np.uint16)
        image = PIL.Image.fromarray(grey)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (image.convert(mode) if mode else image).save(
                folder / name, format=format, **how
            )
        return {name: grey / white * WINDOW[1] + low}

    return build


def content(name: str, data: bytes) -> Build:
    """A file with other content."""

    def build(folder: Path, source: Source) -> Truth:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return {name: np.zeros((1, 1, 1))}

    return build


def dangling(folder: Path, source: Source) -> Truth:
    """A link to a missing file."""
    folder.mkdir(parents=True, exist_ok=True)
    os.symlink(folder / "gone" / "scan.nii.gz", folder / "scan.nii.gz")
    return {"scan.nii.gz": np.zeros((1, 1, 1))}


def renamed(build: Build, old: str, new: str) -> Build:
    """A file under another name."""

    def both(folder: Path, source: Source) -> Truth:
        truth = build(folder, source)
        os.rename(folder / old, folder / new)
        return {new: truth[old]}

    return both


def packed_twice(folder: Path) -> None:
    """A gzip file with the name of an uncompressed file."""
    path = folder / "scan.nii"
    path.write_bytes(gzip.compress(path.read_bytes()))


def _nan(values: np.ndarray, bad: float) -> np.ndarray:
    values = values.astype(np.float32)
    values[5, 5, 2] = bad
    return values


_RAS = {
    "space": "right-anterior-superior",
    "space directions": f"(-{PIXEL_MM},0,0) (0,-{PIXEL_MM},0) (0,0,{STEP_MM})",
    "space origin": "(91.87,266.87,34.5)",
    "kinds": "domain domain domain",
}
_OBLIQUE = (0.978148, -0.207912, 0, 0.207912, 0.978148, 0, 0, 0, 1)
_LONG = "n" * 245
_READ: dict[str, Build] = {
    **{
        f"plain_{suffix.replace('.', '_')}": by_sitk(f"scan.{suffix}")
        for suffix in ("nii.gz", "nii", "mha", "mhd", "nrrd")
    },
    "packed_mha": by_sitk("scan.mha", compressed=True),
    "packed_nrrd": by_sitk("scan.nrrd", compressed=True),
    "float_32": by_sitk("scan.nii.gz", kind=np.float32),
    "float_64": by_sitk("scan.nii.gz", kind=np.float64),
    "int_32": by_sitk("scan.nii.gz", kind=np.int32),
    **{
        f"mirrored_{axes}_{suffix.replace('.', '_')}": by_sitk(
            f"scan.{suffix}", direction=direction
        )
        for axes, direction in _MIRRORS.items()
        for suffix in ("nii.gz", "mha", "nrrd")
    },
    "turned_nii": by_sitk("scan.nii.gz", direction=_OBLIQUE),
    "turned_mha": by_sitk("scan.mha", direction=_OBLIQUE),
    "sform_only": by_nibabel("scan.nii.gz", codes=(1, 0)),
    "qform_only": by_nibabel("scan.nii.gz", codes=(0, 1)),
    "no_form": by_nibabel("scan.nii.gz", codes=(0, 0)),
    "one_time_point": by_nibabel(
        "scan.nii.gz", change=lambda v: v[..., None].astype(np.int16)
    ),
    "big_endian_nii": by_nibabel(
        "scan.nii.gz", change=lambda v: v.astype(">i2"), big_endian=True
    ),
    "scl_inter": scaled(1),
    "scl_half": scaled(0.5),
    "single_slice_nii": by_nibabel(
        "scan.nii.gz", change=lambda v: v[..., :1].astype(np.int16)
    ),
    "capital_nii": renamed(by_sitk("scan.nii"), "scan.nii", "SCAN.NII"),
    "capital_nii_gz": renamed(by_sitk("scan.nii.gz"), "scan.nii.gz", "SCAN.NII.GZ"),
    "capital_mha": renamed(by_sitk("scan.mha"), "scan.mha", "SCAN.MHA"),
    "capital_mhd": renamed(by_sitk("scan.mhd"), "scan.mhd", "SCAN.MHD"),
    "nrrd_ras": nrrd(_RAS),
    "nrrd_big_endian": nrrd(_RAS, endian=">"),
    "mhd_no_spacing": mhd_line(lambda line: ""),
    "nrrd_no_spacing": nrrd({}),
}
_EITHER: dict[str, Build] = {
    "nifti_2": by_nibabel("scan.nii.gz", version=2),
    "micron": by_nibabel("scan.nii.gz", affine=_AFFINE * 1000, units="micron"),
    "meter": by_nibabel("scan.nii.gz", affine=_AFFINE / 1000, units="meter"),
    "two_dimensions": by_nibabel(
        "scan.nii.gz", change=lambda v: v[..., 0].astype(np.int16)
    ),
    "not_packed": renamed(by_sitk("scan.nii"), "scan.nii", "scan.nii.gz"),
    "packed_unsaid": edited(by_sitk("scan.nii"), packed_twice),
    "mhd_negative_spacing": mhd_line(lambda line: line.replace("= ", "= -", 1)),
    "mhd_zero_spacing": mhd_line(lambda line: "ElementSpacing = 0 0 0"),
    "beyond_int16": by_sitk(
        "scan.nii.gz", kind=np.int32, change=lambda hu: np.where(hu > 200, 40000, hu)
    ),
    "long_name": renamed(by_sitk("scan.nii.gz"), "scan.nii.gz", f"{_LONG}.nii.gz"),
}
_REFUSED: dict[str, tuple[Build, str]] = {
    "nan": (by_nibabel("scan.nii.gz", change=lambda v: _nan(v, np.nan)), "(?i)finite"),
    "infinite": (
        by_nibabel("scan.nii.gz", change=lambda v: _nan(v, np.inf)),
        "(?i)finite",
    ),
    "three_time_points": (
        by_nibabel(
            "scan.nii.gz",
            change=lambda v: np.repeat(v[..., None], 3, 3).astype(np.int16),
        ),
        "(?i)dimension",
    ),
    "plus_1024": (
        by_sitk("scan.nii.gz", kind=np.uint16, change=lambda hu: hu + 1024),
        "trust_hu",
    ),
    "uint_8": (
        by_sitk(
            "scan.nii.gz",
            kind=np.uint8,
            change=lambda hu: (hu.clip(-1000, 500) + 1000) // 6,
        ),
        "trust_hu",
    ),
    "fractions": (
        by_sitk("scan.nii.gz", kind=np.float32, change=lambda hu: (hu + 1024) / 4095),
        "trust_hu",
    ),
    "coronal": (by_sitk("scan.nii.gz", permuted=(0, 2, 1)), "(?i)axial"),
    "colours": (
        by_nibabel(
            "scan.nii.gz",
            change=lambda v: np.zeros(
                (32, 32, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]
            ),
        ),
        "(?i)channel|colour|RGB",
    ),
    "half_nii_gz": (halved("scan.nii.gz"), "scan"),
    "half_nii": (halved("scan.nii"), "scan"),
    "half_mha": (halved("scan.mha"), "scan"),
    "half_nrrd": (halved("scan.nrrd"), "scan"),
    "empty": (content("scan.nii.gz", b""), "(?i)empty"),
    "words": (content("scan.nii.gz", b"hello" * 100), "scan"),
    "mhd_without_raw": (
        edited(by_sitk("scan.mhd"), lambda folder: os.remove(folder / "scan.raw")),
        "scan",
    ),
    "dangling_link": (dangling, "scan"),
    "png_no_window": (png("p_0001.png"), r"data\.window"),
    "png_as_nii": (png("scan.nii.gz"), "scan"),
}
_PNG: dict[str, tuple[Build, str]] = {
    "png_8_bits": (png("p_0001.png"), "read"),
    "png_16_bits": (png("p_0001.PNG", bits=16), "read"),
    "png_rgb": (png("p_0001.png", mode="RGB"), "refused"),
    "png_palette": (png("p_0001.png", mode="P"), "either"),
    "png_alpha": (png("p_0001.png", mode="LA"), "refused"),
    "png_transparent": (png("p_0001.png", transparency=0), "either"),
    "png_gamma": (png("p_0001.png", gamma=0.45), "either"),
    "png_is_jpeg": (png("p_0001.png", format="JPEG"), "refused"),
    "png_empty": (content("p_0001.png", b""), "refused"),
}

IMAGE_CASES = (
    *(Case(name=name, build=build) for name, build in _READ.items()),
    *(
        Case(name=name, build=build, outcome="either")
        for name, build in _EITHER.items()
    ),
    *(
        Case(name=name, build=build, outcome="refused", says=says)
        for name, (build, says) in _REFUSED.items()
    ),
    *(
        Case(name=name, build=build, outcome=outcome, keys={"data.window": WINDOW})
        for name, (build, outcome) in _PNG.items()
    ),
    *(
        Case(
            name=f"{name}_rays",
            build=_READ[name],
            outcome="refused",
            says=r"data\.pixel_mm",
            tasks=("simulate",),
        )
        for name in ("mhd_no_spacing", "nrrd_no_spacing")
    ),
    *(
        Case(
            name=f"{name}_given",
            build=_READ[name],
            keys={"data.pixel_mm": PIXEL_MM},
            tasks=("simulate",),
        )
        for name in ("mhd_no_spacing", "nrrd_no_spacing")
    ),
    Case(name="plain_simulated", build=_READ["plain_nii_gz"], tasks=("simulate",)),
    Case(
        name="other_pictures",
        build=lambda f, s: _pictures(f, s),
        lists=("a.tif", "b.jpg"),
    ),
)


def _pictures(folder: Path, source: Source) -> Truth:
    """Pictures in unsupported formats beside a scan."""
    png("b.jpg", format="JPEG")(folder, source)
    shutil.copy(folder / "b.jpg", folder / "a.tif")
    return _READ["plain_nii_gz"](folder, source)

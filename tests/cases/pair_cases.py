"""Folders of pairs, lq/ and gt/, with something wrong or unusual."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from tests.cases import writing
from tests.cases.image_cases import WINDOW, png
from tests.cases.source import Source, chest, synthetic

SIZE = 64
PIXEL_MM = 350 / SIZE
GOOD = ("A", "B", "C", "D")
SIDES = ("lq", "gt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairCase:
    """A folder of pairs.

    Attributes:
      name: of the case.
      build: writes lq/ and gt/ below a folder.
      good: pairs that must be taken, by their paths below lq/.
      bad: pairs that must be left out, and what must be said of each.
      ends: whether the run goes on, or may end with words that name the bad ones.
      says: what must be said beside.
      keys: of the config.
      tasks: that the case is tried on.
    """

    name: str
    build: Callable[[Path], object]
    good: tuple[str, ...] = tuple(f"{patient}/scan.nii.gz" for patient in GOOD)
    bad: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ends: Literal["done", "refused", "either"] = "done"
    says: str = ""
    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tasks: tuple[str, ...] = ("purify", "train")


def image(
    hu: np.ndarray,
    *,
    kind: Any = np.int16,
    pixel_mm: float = PIXEL_MM,
    origin: tuple[float, float, float] = (0, 0, 0),
) -> sitk.Image:
    """A volume with slices 5 mm apart."""
    made = sitk.GetImageFromArray(hu.astype(kind))
    made.SetSpacing((pixel_mm, pixel_mm, 5.0))
    made.SetOrigin(origin)
    return made


def hu_of(side: str, seed: int = 0, count: int = 3) -> np.ndarray:
    """The chest, noisy on the side of low dose."""
    hu = chest(count, size=SIZE, seed=seed)
    if side == "lq":
        hu = hu + np.random.default_rng(seed).integers(-60, 61, hu.shape)
    return hu.clip(-1023, 3071)


def put(root: Path, side: str, name: str, what: sitk.Image | bytes) -> None:
    """Writes one side of a pair."""
    path = root / side / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(what, bytes):
        path.write_bytes(what)
    else:
        sitk.WriteImage(what, path)


def good(root: Path, patients: tuple[str, ...] = GOOD) -> None:
    """Good pairs."""
    for seed, patient in enumerate(patients):
        for side in SIDES:
            put(root, side, f"{patient}/scan.nii.gz", image(hu_of(side, seed)))


def beside(**sides: Callable[[], sitk.Image | bytes | None]) -> Callable[[Path], None]:
    """The good pairs, and patient E with the sides given."""

    def build(root: Path) -> None:
        good(root)
        for side, make in sides.items():
            what = make()
            if what is not None:
                put(root, side, "E/scan.nii.gz", what)

    return build


def both(change: Callable[[np.ndarray], np.ndarray], **how: Any) -> Any:
    """The good pairs, and patient E with both sides changed alike."""
    return beside(
        lq=lambda: image(change(hu_of("lq", 9)), **how),
        gt=lambda: image(change(hu_of("gt", 9)), **how),
    )


def moved(*origin: float, pixel_mm: float = PIXEL_MM) -> Callable[[Path], None]:
    """The good pairs, and patient E whose lq is at another position."""
    x, y, z = origin
    return beside(
        lq=lambda: image(hu_of("lq", 9), origin=(x, y, z), pixel_mm=pixel_mm),
        gt=lambda: image(hu_of("gt", 9), pixel_mm=pixel_mm),
    )


def _packed(hu: np.ndarray, folder: Path) -> bytes:
    sitk.WriteImage(image(hu), folder / "packed.nii.gz")
    content = (folder / "packed.nii.gz").read_bytes()
    (folder / "packed.nii.gz").unlink()
    return content


def many_bad(root: Path) -> None:
    """One bad partner of each kind beside the good pairs."""
    good(root)
    lq, gt = hu_of("lq", 9), hu_of("gt", 9)
    content = _packed(gt, root)
    flipped, holed = image(lq), image(gt, kind=np.float32)
    flipped.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, -1))
    holed[5, 5, 1] = float("nan")
    for name, low, normal in (
        *(("size", image(lq[:, :50]), image(gt)), ("nogt", image(lq), None)),
        *(("spacing", image(lq, pixel_mm=5.0), image(gt)), ("nolq", None, image(gt))),
        *(
            ("trunc", image(lq), content[: len(content) // 2]),
            ("empty", b"", image(gt)),
        ),
        *(("junk", image(lq), b"hello"), ("flip", flipped, image(gt))),
        ("holed", image(lq), holed),
    ):
        for side, what in zip(SIDES, (low, normal), strict=True):
            if what is not None:
                put(root, side, f"{name}/scan.nii.gz", what)


MANY_BAD = {
    **{"size/": "pixels", "spacing/": "spacing", "nogt/": "lq without gt"},
    **{
        "nolq/": "gt without lq",
        "trunc/": "trunc|damaged",
        "empty/": "empty",
    },
    **{"junk/": "junk", "flip/": "orientation", "holed/": "finite"},
}


def series_pairs(*patients: str, identity: str = "") -> Callable[[Path], None]:
    """Patients as DICOM series, with one PatientID each or one for all."""

    def build(root: Path) -> None:
        for seed, patient in enumerate(patients):
            for side in SIDES:
                source = synthetic(3, size=SIZE, seed=seed)
                slices = source.slices()
                for data in slices:
                    data.PixelSpacing = [f"{PIXEL_MM:.6g}"] * 2
                    data.PatientID = identity or patient
                writing.write(root / side / patient / "series", slices, source.hu)

    return build


def scout_beside(root: Path) -> None:
    """The good pairs, and a localizer on both sides."""
    good(root)
    for side in SIDES:
        data = synthetic(1, size=SIZE).slices()[0]
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        data.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
        data.PatientID = "E"
        writing.save(data, root / side / "E/scout/1.dcm")


def linked(root: Path) -> None:
    """A link leads to patient D; other links form a circle."""
    good(root)
    for side in SIDES:
        elsewhere = root.parent / f"elsewhere_{side}"
        os.rename(root / side / "D", elsewhere)
        os.symlink(elsewhere, root / side / "D")
        os.symlink(root / side, root / side / "A" / "round")


def prefixed(root: Path) -> None:
    """Names as in public datasets: quarter_p1 and full_p1."""
    for seed, patient in enumerate(GOOD):
        for side, prefix in zip(SIDES, ("quarter", "full"), strict=True):
            name = f"{prefix}_{patient}.nii.gz"
            put(root, side, name, image(hu_of(side, seed)))


def pictures(root: Path) -> None:
    """PNG of a known window; the pixel size is unknown."""
    for seed in range(4):
        for side in SIDES:
            hu = hu_of(side, seed, 1)
            source = Source(hu=hu, headers=())
            png(f"p{seed}_0001.png")(root / side, source)


_E = "E/"
PAIR_CASES = (
    PairCase(name="plain", build=good),
    PairCase(name="many_bad", build=many_bad, bad=MANY_BAD),
    PairCase(
        name="beyond_int16",
        build=both(lambda hu: np.where(hu > 200, 40000, hu), kind=np.int32),
        bad={_E: "int16|trust_hu"},
    ),
    PairCase(
        name="plus_1024",
        build=both(lambda hu: hu + 1024, kind=np.uint16),
        bad={_E: "trust_hu"},
    ),
    PairCase(
        name="fractions",
        build=both(lambda hu: (hu + 1024) / 4095, kind=np.float32),
        bad={_E: "trust_hu"},
    ),
    PairCase(name="scout", build=scout_beside, bad={_E: "(?i)localizer|axial"}),
    PairCase(
        name="other_matrix",
        build=both(lambda hu: hu[:, :48, :48]),
        bad={_E: "48"},
        ends="either",
        tasks=("train",),
    ),
    *(
        PairCase(name=name, build=moved(*where, pixel_mm=mm), bad={_E: says})
        for name, where, mm, says in (
            ("moved_100_mm_in_z", (0, 0, 100), PIXEL_MM, "position|mm"),
            ("moved_40_mm_in_x", (40, 0, 0), PIXEL_MM, "mm"),
            ("moved_40_mm_in_y", (0, 40, 0), PIXEL_MM, "mm"),
            ("fields_apart", (40, 0, 0), 0.6, "mm"),
        )
    ),
    PairCase(
        name="test_patient_damaged",
        build=beside(lq=lambda: image(hu_of("lq", 9)), gt=lambda: b"hello"),
        bad={_E: "scan"},
        ends="either",
        keys={"data.test_patients": ("E",)},
        tasks=("train",),
    ),
    PairCase(
        name="anonymous",
        build=series_pairs("p1", "p2", "p3", "p4", identity="Anonymous"),
        good=tuple(f"p{i}/series" for i in range(1, 5)),
        says="Anonymous",
        tasks=("train",),
    ),
    PairCase(
        name="linked",
        build=linked,
    ),
    PairCase(
        name="prefixed",
        build=prefixed,
        good=tuple(f"quarter_{patient}.nii.gz" for patient in GOOD),
        keys={"data.name_pattern": "(?:quarter|full)_(.+)"},
    ),
    PairCase(
        name="pictures_no_pixel_size",
        build=pictures,
        good=(),
        bad={"p": r"data\.pixel_mm"},
        ends="refused",
        keys={"data.window": WINDOW},
    ),
    PairCase(
        name="pictures_with_pixel_size",
        build=pictures,
        good=tuple(f"p{seed}_0001.png" for seed in range(4)),
        keys={"data.window": WINDOW, "data.pixel_mm": PIXEL_MM},
    ),
)

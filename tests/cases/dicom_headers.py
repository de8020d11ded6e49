"""Header attributes besides pixels and places: names, dose, windows, flags."""

import warnings
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.uid import JPEG2000, JPEGLSNearLossless, generate_uid

from tests.cases.case import Build, Case, Truth
from tests.cases.source import Source, decoded
from tests.cases.writing import each, raw_text, setting, write

BOTH = ("denoise", "simulate")

_NAMES: dict[str, tuple[str | list[str], str]] = {
    "utf_8": ("ISO_IR 192", "Müller^Łukasz=山田^太郎"),
    "latin_1": ("ISO_IR 100", "Müller^José"),
    "ir_87": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "ir_13_87": (
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "ir_149": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "ir_100_149": (
        ["ISO 2022 IR 100", "ISO 2022 IR 149"],
        "Müller^Jörg=洪^吉洞=홍^길동",
    ),
    "gb18030": ("GB18030", "Wang^XiaoDong=王^小东"),
}


def named(charset: str | list[str], name: str) -> Build:
    """Every name and text in a character set."""
    return setting(
        SpecificCharacterSet=charset, PatientName=name, ReferringPhysicianName=name
    )


def full_precision(data: FileDataset, index: int) -> None:
    """64-bit numbers that need more than six digits."""
    data.SpiralPitchFactor = 0.98437512345678
    data.RevolutionTime = 0.28512345678912 + index / 3
    data.TotalCollimationWidth = 57.600000381469727


def with_dose(*, phantom: bool) -> Build:
    """CTDIvol, with or without the phantom it was measured in."""

    def edit(data: FileDataset, index: int) -> None:
        data.CTDIvol = 7.123456789012
        if phantom:
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator = "113691", "DCM"
            code.CodeMeaning = "IEC Body Dosimetry Phantom"
            data.CTDIPhantomTypeCodeSequence = [code]

    return each(edit)


def lossy(syntax: str, **how: object) -> Build:
    """Compressed with loss, but without a flag."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        hu = []
        for data in slices:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data.compress(syntax, **how)
            hu.append(decoded(data))
        return write(folder, slices, hu)

    return build


def same_uids(data: FileDataset, index: int) -> None:
    """All slices share one SOPInstanceUID: a bad anonymiser."""
    data.SOPInstanceUID = "1.2.3.4"


def own_series(data: FileDataset, index: int) -> None:
    """Each slice has its own series: another bad anonymiser."""
    data.SeriesInstanceUID = generate_uid()


def counted_backwards(data: FileDataset, index: int) -> None:
    """InstanceNumber runs against the positions."""
    data.InstanceNumber = str(6 - index)


def no_series(data: FileDataset, index: int) -> None:
    """SeriesInstanceUID is missing."""
    del data.SeriesInstanceUID


_KEPT: dict[str, Build] = {
    **{f"name_{key}": named(*value) for key, value in _NAMES.items()},
    "numbers_of_64_bits": each(full_precision),
    "dose_with_phantom": with_dose(phantom=True),
    "dose_without_phantom": with_dose(phantom=False),
    "window_function": setting(VOILUTFunction="SIGMOID"),
    "window_explained": setting(
        WindowCenter=["-600", "40"],
        WindowWidth=["1500", "400"],
        WindowCenterWidthExplanation=["LUNG", "SOFT TISSUE"],
    ),
    "lossy_flags": setting(
        LossyImageCompression="01",
        LossyImageCompressionRatio="10",
        LossyImageCompressionMethod="ISO_10918_1",
        BurnedInAnnotation="NO",
    ),
    "lossy_jpeg_2000": lossy(JPEG2000, j2k_cr=[4]),
    "lossy_jpeg_ls": lossy(JPEGLSNearLossless, jls_error=2),
    "derived_before": setting(
        DerivationDescription="Metal artefact reduction",
        ImageType=["DERIVED", "SECONDARY", "AXIAL", "MAR"],
    ),
    "name_latin_1_unsaid": setting(PatientName="M\xfcller^A"),
    "same_uids": each(same_uids),
    "counted_backwards": each(counted_backwards),
    "patient_without_name": setting(PatientName=None, PatientID=None),
}
HEADERS = (
    *(Case(name=name, build=build, tasks=BOTH) for name, build in _KEPT.items()),
    Case(
        name="intercept_with_comma",
        build=each(raw_text("RescaleIntercept", "-1024,0")),
        outcome="either",
        says="(?i)intercept|0028.1052",
    ),
    Case(
        name="series_uid_of_each",
        build=each(own_series),
        outcome="either",
        says="(?i)series",
    ),
    Case(
        name="series_uid_missing",
        build=each(no_series),
        outcome="either",
        says="(?i)series",
    ),
)

"""How pixels are stored: encodings, compression, padding, values that are not HU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from tests.cases.case import Build, Case, Truth
from tests.cases.source import SIZE, Source, decoded, put, save, store
from tests.cases.writing import each, plain, setting, without, write

BOTH = ("denoise", "simulate")
Y, X = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
OUTSIDE = np.hypot(Y, X) > 0.49 * SIZE


def stored_as(*choices: dict[str, Any]) -> Build:
    """The plain HU, encoded by `source.store`; slices take the choices in turn."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        hu = [
            store(data, image, **choices[index % len(choices)])
            for index, (data, image) in enumerate(zip(slices, source.hu, strict=True))
        ]
        return write(folder, slices, np.array(hu))

    return build


def padded(
    value: int,
    *,
    intercept: int = -1024,
    signed: bool = True,
    tag: tuple[str, int] | None = None,
) -> Build:
    """A stored value outside the circle of the field of view, marked or not."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        for data, image in zip(slices, source.hu, strict=True):
            store(data, image, intercept=intercept, signed=signed)
            put(data, np.where(OUTSIDE, value, image - intercept), signed=signed)
            if tag:
                data.add_new("PixelPaddingValue", *tag)
        return write(folder, slices, np.where(OUTSIDE, np.nan, source.hu))

    return build


def compressed(syntax: UID, **how: Any) -> Build:
    """Encapsulated, in a lossless transfer syntax."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        for data, image in zip(slices, source.hu, strict=True):
            if how:
                store(data, image, **how)
            data.compress(syntax)
        return write(folder, slices, source.hu)

    return build


def high_bits(values: int, *, overlay: bool = False) -> Build:
    """Something in the bits above BitsStored: an overlay, or garbage."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        squares = np.indices((SIZE, SIZE)).sum(0) // 16 % values
        for data, image in zip(slices, source.hu, strict=True):
            store(data, image, bits=12)
            data.PixelData = (image + 1024 | squares << 12).astype("<u2").tobytes()
            if overlay:
                for tag, vr, value in (
                    *((0x60000010, "US", SIZE), (0x60000011, "US", SIZE)),
                    *((0x60000040, "CS", "G"), (0x60000050, "SS", [1, 1])),
                    *((0x60000100, "US", 16), (0x60000102, "US", 12)),
                ):
                    data.add_new(tag, vr, value)
        return write(folder, slices, source.hu)

    return build


def masked_sign(folder: Path, source: Source) -> Truth:
    """12 signed bits with the sign only in bit 11."""
    slices = source.slices()
    for data, image in zip(slices, source.hu, strict=True):
        store(data, image, intercept=0, signed=True, bits=12)
        data.PixelData = (image & 0xFFF).astype("<u2").tobytes()
    return write(folder, slices, source.hu)


def in_syntax(syntax: UID, **how: bool) -> Build:
    """Uncompressed, in an unusual transfer syntax."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()
        for data in slices:
            data.file_meta.TransferSyntaxUID = syntax
        return write(folder, slices, source.hu, **how)

    return build


def big_endian(folder: Path, source: Source) -> Truth:
    """Explicit big endian, as in old archives."""
    names = [f"{index + 1:03d}.dcm" for index in range(len(source.hu))]
    for data, name in zip(source.slices(), names, strict=True):
        turned = Dataset()
        turned.update({element.tag: element for element in data})
        turned.file_meta = data.file_meta
        turned.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        turned.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        save(
            turned,
            folder / name,
            little_endian=False,
            implicit_vr=False,
            enforce_file_format=True,
        )
    return dict(zip(names, source.hu.astype(np.float64), strict=True))


def resized(
    change: Callable[[np.ndarray], np.ndarray], *, count: int | None = None
) -> Build:
    """The plain series, or the first slices of it, on another matrix."""

    def build(folder: Path, source: Source) -> Truth:
        slices = source.slices()[:count]
        hu = [change(image) for image in source.hu[:count]]
        for data, image in zip(slices, hu, strict=True):
            store(data, image)
        return write(folder, slices, np.array(hu))

    return build


def rgb(folder: Path, source: Source) -> Truth:
    """The series as screenshots."""
    data = source.slices()[0]
    grey = (source.hu[0] // 16 + 100).clip(0, 255)
    put(data, grey, bits=8, allocated=8)
    data.PixelData = np.repeat(grey[..., None], 3, -1).astype("u1").tobytes()
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "RGB"
    data.SOPClassUID = SecondaryCaptureImageStorage
    return write(folder, [data], source.hu[:1])


def negative_slope(folder: Path, source: Source) -> Truth:
    """Stored values fall as HU rise."""
    slices = source.slices()
    for data, image in zip(slices, source.hu, strict=True):
        store(data, image, slope=-1, intercept=3071)
    return write(folder, slices, source.hu)


def in_fractions(folder: Path, source: Source) -> Truth:
    """A network's input in 0..1, stored as DICOM."""
    slices = source.slices()
    for data, image in zip(slices, source.hu, strict=True):
        store(data, (image + 1024) / 4095, slope=1 / 4095, intercept=0)
        data.RescaleSlope = f"{1 / 4095:.10f}"
    return write(folder, slices, np.array([decoded(data) for data in slices]))


_HU = dict(intercept=0, signed=True)
_ENCODINGS: dict[str, Build] = {
    "plain": plain,
    "slope_varies": stored_as({}, dict(slope=0.5), dict(slope=0.25)),
    "slope_1_5": stored_as({}, dict(slope=1.5)),
    "intercept_varies": stored_as(*(dict(intercept=-1024 - 10 * i) for i in range(6))),
    "slope_0_05": stored_as(dict(slope=0.05, **_HU)),
    "slope_half": stored_as(dict(slope=0.5)),
    "slope_negative": negative_slope,
    "signed_hu": stored_as(_HU),
    "signed_12_bits": stored_as(dict(bits=12, **_HU)),
    "signed_12_bits_masked": masked_sign,
    "eight_bits": stored_as(dict(slope=16, bits=8, allocated=8)),
    "thirty_two_bits": stored_as(dict(bits=32, allocated=32)),
    "overlay_in_high_bits": high_bits(2, overlay=True),
    "garbage_in_high_bits": high_bits(8),
    "big_endian": big_endian,
    "implicit_vr": in_syntax(
        ImplicitVRLittleEndian, implicit_vr=True, little_endian=True
    ),
    "deflated": in_syntax(DeflatedExplicitVRLittleEndian),
    "rle": compressed(RLELossless),
    "rle_signed": compressed(RLELossless, **_HU),
    "jpeg_ls": compressed(JPEGLSLossless),
    "jpeg_ls_signed_12": compressed(JPEGLSLossless, bits=12, **_HU),
    "jpeg_ls_signed": compressed(JPEGLSLossless, **_HU),
    "jpeg_2000": compressed(JPEG2000Lossless),
    "jpeg_2000_signed_12": compressed(JPEG2000Lossless, bits=12, **_HU),
    "jpeg_2000_signed": compressed(JPEG2000Lossless, **_HU),
    "rescale_type_us": setting(RescaleType="US"),
    "modality_missing": without("Modality"),
    "nonsquare_matrix": resized(lambda hu: hu[:, :100]),
    "odd_size": resized(lambda hu: hu[:127, :97]),
    "tiny_64": resized(lambda hu: hu[::2, ::2]),
    "big_1024": resized(lambda hu: np.kron(hu, np.ones((8, 8), int)), count=1),
}
_PADDING: dict[str, Build] = {
    "padding_-2000": padded(-2000, intercept=0),
    "padding_-2000_tagged": padded(-2000, intercept=0, tag=("SS", -2000)),
    "padding_-3024": padded(-2000),
    "padding_-3024_tagged": padded(-2000, tag=("SS", -2000)),
    "padding_-3024_tag_unsigned": padded(-2000, tag=("US", 63536)),
    "padding_63488_unsigned": padded(63488, signed=False, tag=("US", 63488)),
    "padding_-32768": padded(-32768),
    "padding_-32768_tagged": padded(-32768, tag=("SS", -32768)),
}
_NO_HU: dict[str, tuple[Build, str]] = {
    "monochrome_1": (setting(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME"),
    "rgb": (rgb, "RGB|not CT|grey"),
    "slope_0": (setting(RescaleSlope="0"), "(?i)slope"),
    "no_rescale": (without("RescaleSlope", "RescaleIntercept"), "trust_hu"),
    "intercept_0": (setting(RescaleIntercept="0"), "trust_hu"),
    "intercept_empty": (setting(RescaleIntercept=None), "(?i)trust_hu|intercept"),
    "fractions_0_to_1": (in_fractions, "trust_hu"),
    "tiny_8": (resized(lambda hu: hu[::16, ::16]), "16"),
}

PIXELS = (
    *(
        Case(
            name=n, build=b, tasks=BOTH if n in ("plain", "slope_varies") else BOTH[:1]
        )
        for n, b in _ENCODINGS.items()
    ),
    *(Case(name=name, build=build, tasks=BOTH) for name, build in _PADDING.items()),
    # Padding lies at the low end of what is stored; in the middle it would be water.
    Case(
        name="padding_0_is_water",
        build=each(
            lambda data, index: (
                store(data, decoded(data), intercept=0, signed=True),
                data.add_new("PixelPaddingValue", "SS", 0),
            )
        ),
        says="PixelPaddingValue",
        tasks=BOTH,
    ),
    Case(
        name="intercept_0_trusted",
        build=stored_as(dict(intercept=0, signed=True)),
        keys={"data.trust_hu": True},
        tasks=BOTH,
    ),
    *(
        Case(
            name=name,
            build=build,
            outcome="refused",
            says=says,
            tasks=BOTH if "trust_hu" in says else BOTH[:1],
        )
        for name, (build, says) in _NO_HU.items()
    ),
)

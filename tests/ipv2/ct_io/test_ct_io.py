import dataclasses
import gzip
import os
import shutil
import stat

import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataelem import DataElement
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from common.errors import UserError
from ipv2 import ct_io
from ipv2.ct_io.dicom_header import bits_of, text_of
from tests.ipv2.ct_files import make_series, make_slice, save, stored_slice


def volume_of(hu, **fields):
    hu = np.asarray(hu, np.float32)
    fields = {
        "spacing_mm": (2.5, 0.7, 0.8),
        "direction": (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0),
        "origin_mm": (-10.5, 3.25, 77.125),
    } | fields
    return ct_io.Volume(hu=hu, **fields)


def random_hu(shape=(4, 6, 5), seed=0):
    values = np.random.default_rng(seed).integers(-1024, 3000, shape)
    return values.astype(np.float32)


# --- DICOM series ----------------------------------------------------------------


def test_series_is_sorted_by_position_not_by_name(tmp_path):
    hu = make_series(tmp_path / "s")
    volume = ct_io.read_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.hu.dtype == np.float32
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.8))
    np.testing.assert_allclose(volume.origin_mm, (-5, 7, -100))
    assert volume.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert text_of(volume.headers[0], "PatientID") == "P1"
    assert text_of(volume.headers[0], "PatientName") == "Müller^Jörg"
    assert (volume.unit, volume.format, volume.name) == ("HU", "dicom-series", "s")
    assert [path.name for path in volume.paths] == [f"IM00{i}" for i in (5, 4, 3, 2, 1)]


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0)],
    ids=["coronal", "sagittal", "flipped"],
)
def test_oriented_series_keeps_its_direction(tmp_path, orientation):
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    order = [2, 0, 3, 1]
    for index in order:
        position = np.array([1.0, 2.0, 3.0]) + 1.5 * index * normal
        data = make_slice(
            stored_slice(index), position=position, orientation=orientation
        )
        save(data, tmp_path / "s" / f"{order[index]}.dcm")
    volume = ct_io.read_volume(tmp_path / "s")
    for index in range(4):
        np.testing.assert_array_equal(volume.hu[index], stored_slice(index) - 1024)
        np.testing.assert_allclose(
            volume.position_mm(index), [1, 2, 3] + 1.5 * index * normal
        )
    np.testing.assert_allclose(volume.normal, normal)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    hu = make_series(tmp_path / "s")
    (tmp_path / "s" / "notes.txt").write_text("hello")
    (tmp_path / "s" / "empty").touch()
    (tmp_path / "s" / ".hidden").write_bytes(b"x" * 500)
    (tmp_path / "s" / "sub").mkdir()
    index = make_slice(stored_slice(0), sop_class="1.2.840.10008.1.3.10", modality="")
    del index.PixelData
    save(index, tmp_path / "s" / "DICOMDIR")
    report = make_slice(stored_slice(0), sop_class="1.2.3", modality="SR")
    del report.PixelData
    save(report, tmp_path / "s" / "report")
    np.testing.assert_array_equal(ct_io.read_volume(tmp_path / "s").hu, hu)


def test_several_series_are_listed_and_one_is_picked(tmp_path):
    folder = tmp_path / "s"
    make_series(folder, 3, series="1.2.31", description="lung 1 mm")
    names = [f"b{i}" for i in range(4)]
    soft = make_series(
        folder, 4, series="1.2.32", description="soft 5 mm", names=names, start=50.0
    )
    with pytest.raises(UserError) as error:
        ct_io.read_volume(folder)
    for text in (
        "1.2.31",
        "'lung 1 mm'",
        "3 slices",
        "1.2.32",
        "4 slices",
        "config.data.series",
    ):
        assert text in str(error.value)
    for series in ("1.2.32", "soft 5 mm", "SOFT", "soft"):
        np.testing.assert_array_equal(
            ct_io.read_volume(folder, ct_io.ReadOptions(series=series)).hu, soft
        )
    with pytest.raises(UserError, match=r"2 CT series begin with .1\.2\.3."):
        ct_io.read_volume(folder, ct_io.ReadOptions(series="1.2.3"))
    with pytest.raises(UserError, match="0 CT series begin with 'bone'"):
        ct_io.read_volume(folder, ct_io.ReadOptions(series="bone"))


def test_single_slice(tmp_path):
    path = save(make_slice(stored_slice(3)), tmp_path / "one")
    volume = ct_io.read_volume(path)
    np.testing.assert_array_equal(volume.hu, stored_slice(3)[None] - 1024)
    assert volume.format == "dicom"
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.8))


# --- values ----------------------------------------------------------------------


def test_each_slice_has_its_own_rescale(tmp_path):
    want = []
    for index, (slope, intercept) in enumerate([("1", "-1024"), ("0.25", "-1000.5")]):
        stored = stored_slice(index)
        data = make_slice(
            stored, position=(0, 0, index), slope=slope, intercept=intercept
        )
        save(data, tmp_path / "s" / f"{index}.dcm")
        want.append(stored * float(slope) + float(intercept))
    # Quarters and halves below 4096 are exact in float32.
    np.testing.assert_array_equal(ct_io.read_volume(tmp_path / "s").hu, want)


@pytest.mark.parametrize(
    ("bits", "signed", "low", "high"),
    [
        (12, False, 0, 4096),
        (12, True, -900, 2048),
        (16, False, 0, 20000),
        (16, True, -900, 20000),
    ],
)
def test_12_and_16_bits_signed_and_unsigned(tmp_path, bits, signed, low, high):
    stored = stored_slice(1, low=low, high=high)
    data = make_slice(stored, bits=bits, signed=signed, intercept="-24")
    path = save(data, tmp_path / "a.dcm")
    # Up to 20,000, which no CT holds.
    read = ct_io.read_volume(path, ct_io.ReadOptions(trust_hu=True))
    np.testing.assert_array_equal(read.hu[0], stored - 24.0)


@pytest.mark.parametrize("syntax", ["rle", "deflated", "implicit", "big endian"])
def test_transfer_syntaxes(tmp_path, syntax):
    stored = stored_slice(1, size=32)
    data = make_slice(stored)
    if syntax == "rle":
        data.compress(RLELossless)
    elif syntax == "big endian":
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        data.PixelData = stored.astype(">u2").tobytes()
    else:
        data.file_meta.TransferSyntaxUID = {
            "deflated": DeflatedExplicitVRLittleEndian,
            "implicit": ImplicitVRLittleEndian,
        }[syntax]
    little = syntax != "big endian"
    path = tmp_path / "a.dcm"
    pydicom.dcmwrite(
        path,
        data,
        implicit_vr=syntax == "implicit",
        little_endian=little,
        enforce_file_format=True,
    )
    np.testing.assert_array_equal(ct_io.read_volume(path).hu[0], stored - 1024)


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_lossless_jpeg(tmp_path, compressor):
    hu = random_hu((1, 32, 32))
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetMetaData("0008|0060", "CT")
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.Execute(image)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    assert data.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(ct_io.read_volume(tmp_path / "a.dcm").hu, hu)


@pytest.mark.parametrize(
    ("intercept", "stored_padding", "tags"),
    [
        ("0", -2000, {}),
        ("-1024", -2000, {}),  # -3024 HU
        ("0", -3024, {}),
        ("-1024", 63, {"padding": 63}),  # a plausible -961 HU, but for the tag
        ("-1024", 17, {"padding": 10, "padding_limit": 20}),
        ("-1024", 17, {"padding": 20, "padding_limit": 10}),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_padding_becomes_air(tmp_path, intercept, stored_padding, tags, implicit):
    stored = stored_slice(1, low=100)
    stored[:, :3] = stored_padding
    data = make_slice(stored, signed=True, bits=16, intercept=intercept, **tags)
    if implicit:
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    volume = ct_io.read_volume(save(data, tmp_path / "a.dcm"))
    assert np.all(volume.hu[0, :, :3] == -1024)
    np.testing.assert_array_equal(volume.hu[0, :, 3:], stored[:, 3:] + float(intercept))


def test_negative_padding_wraps_to_the_sign_of_the_pixels(tmp_path):
    stored = stored_slice(1, low=100)
    stored[0] = -50
    data = make_slice(stored, signed=True, bits=16, padding=-50)
    # In implicit VR the reader cannot know the tag's sign, and reports 65486.
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    volume = ct_io.read_volume(save(data, tmp_path / "a.dcm"))
    assert bits_of(volume.headers[0], "PixelPaddingValue") == "65486"
    assert np.all(volume.hu[0, 0] == -1024)
    np.testing.assert_array_equal(volume.hu[0, 1:], stored[1:] - 1024)


def test_noise_of_air_below_padding_stays(tmp_path):
    hu = np.array([[[-1999.0, -1300.5, -2000.0, -3024.0, -1024.0]]], np.float32)
    ct_io.write_volume(volume_of(hu), tmp_path / "a.nii")
    np.testing.assert_array_equal(
        ct_io.read_volume(tmp_path / "a.nii").hu,
        np.float32([[[-1999.0, -1300.5, -1024, -1024, -1024]]]),
    )


def test_missing_rescale_takes_stored_values(tmp_path):
    stored = stored_slice(1, high=2000)
    path = save(make_slice(stored, slope=None), tmp_path / "a.dcm")
    np.testing.assert_array_equal(ct_io.read_volume(path).hu[0], stored)


# --- other formats ---------------------------------------------------------------

FORMATS = ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("integer", [True, False])
def test_formats_round_trip_values_and_geometry(tmp_path, name, integer):
    hu = random_hu() + (0 if integer else 0.25)
    wrote = volume_of(hu, integer=integer)
    assert ct_io.write_volume(wrote, tmp_path / "new" / name) == tmp_path / "new" / name
    read = ct_io.read_volume(tmp_path / "new" / name)
    np.testing.assert_array_equal(read.hu, hu)
    # NIfTI keeps geometry as float32.
    np.testing.assert_allclose(read.spacing_mm, wrote.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(read.origin_mm, wrote.origin_mm, rtol=1e-6)
    np.testing.assert_allclose(read.direction, wrote.direction, atol=1e-6)
    assert (read.name, read.unit, read.integer) == ("a", "HU", integer)
    assert ct_io.write_volume(read, tmp_path / f"b{name[1:]}").exists()
    left = {path.name for path in (tmp_path / "new").iterdir()}
    assert left == ({"a.mhd", "a.raw"} if name == "a.mhd" else {name})


def test_tags_that_are_not_utf8_do_no_harm(tmp_path):
    path = ct_io.write_volume(volume_of(random_hu()), tmp_path / "a.mha")
    start = b"ObjectType = Image\n"
    content = path.read_bytes().replace(
        start, start + "Käse = ja\nAuthor = Müller\n".encode("latin_1")
    )
    path.write_bytes(content)
    volume = ct_io.read_volume(path)
    assert volume.tags["Author"] == "M\ufffdller"
    ct_io.write_volume(volume, tmp_path / "b.mha")
    read = ct_io.read_volume(tmp_path / "b.mha")
    np.testing.assert_array_equal(read.hu, random_hu())
    assert read.tags["Author"] == "M\ufffdller"


def test_two_dimensional_and_trailing_one_volumes(tmp_path):
    hu = random_hu((6, 5)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(hu), tmp_path / "two.nrrd")
    np.testing.assert_array_equal(ct_io.read_volume(tmp_path / "two.nrrd").hu, hu[None])
    four = sitk.JoinSeries([sitk.GetImageFromArray(random_hu())])
    sitk.WriteImage(four, tmp_path / "four.nii")
    np.testing.assert_array_equal(
        ct_io.read_volume(tmp_path / "four.nii").hu, random_hu()
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_png_as_grey_levels(tmp_path, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    grey = np.random.default_rng(0).integers(0, 2**bits, (6, 5)).astype(dtype)
    PIL.Image.fromarray(grey).save(tmp_path / "a.png", dpi=(72, 72))
    volume = ct_io.read_volume(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.hu, grey[None])
    assert (volume.unit, volume.bits, volume.spacing_known) == ("grey", bits, False)
    assert volume.spacing_mm == (1, 1, 1)
    with pytest.raises(UserError, match="a: holds grey values, HU are needed"):
        volume.require_hu()
    ct_io.write_volume(volume, tmp_path / "b.png")
    back = np.asarray(PIL.Image.open(tmp_path / "b.png"))
    np.testing.assert_array_equal(back, grey)


@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_its_window(tmp_path, bits):
    white = 2**bits - 1
    grey = np.array([[0, 1, white // 3, white]], np.uint8 if bits == 8 else np.uint16)
    PIL.Image.fromarray(grey).save(tmp_path / "a.png")
    volume = ct_io.read_volume(
        tmp_path / "a.png", ct_io.ReadOptions(window=(-600.0, 1500.0))
    )
    want = np.array([-1350, -1350 + 1500 / white, -850, 150])
    # float32 holds HU of this size to 6e-5.
    np.testing.assert_allclose(volume.hu[0, 0], want, atol=1e-4)
    assert volume.unit == "HU"
    volume.require_hu()
    ct_io.write_volume(volume, tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "b.png")), grey)
    beyond = ct_io.with_hu(volume, np.full((1, 1, 4), 9000))
    ct_io.write_volume(beyond, tmp_path / "c.png")
    assert np.all(np.asarray(PIL.Image.open(tmp_path / "c.png")) == white)


# --- bad input -------------------------------------------------------------------


def message(path, **options):
    with pytest.raises(UserError) as error:
        ct_io.read_volume(path, ct_io.ReadOptions(**options))
    assert str(path.name) in str(error.value)
    return str(error.value)


def test_missing_slices_are_named(tmp_path):
    make_series(tmp_path / "s", 6)
    (tmp_path / "s" / "IM003").unlink()
    text = message(tmp_path / "s")
    assert "between IM004" in text and "IM002" in text and "1 slices missing" in text


def test_irregular_steps_are_named(tmp_path):
    make_series(tmp_path / "s", 6)
    data = pydicom.dcmread(tmp_path / "s" / "IM003")
    data.ImagePositionPatient[2] += 1.0
    data.save_as(tmp_path / "s" / "IM003")
    text = message(tmp_path / "s")
    assert "irregular step 3.50 mm" in text and "IM004" in text and "IM003" in text


def test_rounded_positions_are_no_gap(tmp_path):
    for index in range(8):
        where = round(0.625 * index, 1)
        data = make_slice(stored_slice(index), position=(0, 0, where))
        save(data, tmp_path / "s" / f"{index}")
    assert ct_io.read_volume(tmp_path / "s").spacing_mm[0] == pytest.approx(4.4 / 7)


def test_duplicate_positions_are_named(tmp_path):
    make_series(tmp_path / "s")
    data = pydicom.dcmread(tmp_path / "s" / "IM002")
    data.save_as(tmp_path / "s" / "again")
    text = message(tmp_path / "s")
    assert "IM002" in text and "again" in text and "same position" in text


def test_sheared_series_is_refused(tmp_path):
    for index in range(4):
        data = make_slice(stored_slice(index), position=(0, index, 2.5 * index))
        save(data, tmp_path / "s" / f"{index}")
    assert "sheared" in message(tmp_path / "s")


@pytest.mark.parametrize(
    ("tags", "what"),
    [
        ({"size": 18}, "sizes"),
        ({"spacing": (0.7, 0.9)}, "pixel spacings"),
        ({"orientation": (0, 1, 0, 1, 0, 0)}, "orientations"),
    ],
)
def test_mixed_slices_are_named(tmp_path, tags, what):
    make_series(tmp_path / "s")
    size = tags.pop("size", 16)
    odd = make_slice(stored_slice(9, size=size), position=(-5, 7, -87.5), **tags)
    save(odd, tmp_path / "s" / "odd")
    text = message(tmp_path / "s")
    assert f"mixed {what}" in text and "odd" in text


def test_empty_and_wrong_folders(tmp_path):
    (tmp_path / "s").mkdir()
    assert "holds no DICOM CT slice (it holds nothing)" in message(tmp_path / "s")
    (tmp_path / "s" / "a.nii").write_bytes(b"x")
    assert "a.nii" in message(tmp_path / "s")
    assert "no such file" in message(tmp_path / "nowhere")


@pytest.mark.parametrize("folder", [False, True])
def test_not_ct(tmp_path, folder):
    data = make_slice(stored_slice(0), modality="MR", sop_class=MRImageStorage)
    path = save(data, tmp_path / "s" / "mr.dcm")
    text = message(tmp_path / "s" if folder else path)
    assert "not CT" in text and "'MR'" in text and "mr.dcm" in text


def test_other_bad_dicom(tmp_path):
    data = make_slice(stored_slice(0))
    data.NumberOfFrames = 3
    data.PixelData = data.PixelData * 3
    assert "same position" in message(save(data, tmp_path / "frames.dcm"))
    data = make_slice(stored_slice(0))
    data.RescaleType = "Z_EFF"
    assert "Z_EFF" in message(save(data, tmp_path / "z.dcm"))
    data = make_slice(stored_slice(0), slope="0")
    assert "RescaleSlope is 0" in message(save(data, tmp_path / "slope.dcm"))
    data = make_slice(stored_slice(0))
    data.PhotometricInterpretation = "MONOCHROME1"
    assert "MONOCHROME1" in message(save(data, tmp_path / "inverse.dcm"))
    data = make_slice(stored_slice(0))
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.PlanarConfiguration = 0
    data.PixelData = data.PixelData * 3
    assert "RGB with 3 values" in message(save(data, tmp_path / "colour.dcm"))
    data = make_slice(stored_slice(0))
    del data.PixelData
    assert "truncated" in message(save(data, tmp_path / "empty.dcm"))
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.3"
    assert "without pixels" in message(save(data, tmp_path / "report.dcm"))


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, -1])
@pytest.mark.parametrize("syntax", ["plain", "rle", "deflated"])
@pytest.mark.parametrize("folder", [False, True])
def test_truncated_dicom_is_named(tmp_path, keep, syntax, folder):
    make_series(tmp_path / "s", 3, size=32)
    data = make_slice(stored_slice(7, size=32), position=(-5, 7, -92.5))
    if syntax == "rle":
        data.compress(RLELossless)
    if syntax == "deflated":
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(data, tmp_path / "s" / "cut.dcm")
    content = path.read_bytes()
    # The last byte: RLE ends with an 8-byte delimiter that carries no pixels.
    size = int(len(content) * keep) if keep > 0 else len(content) - 12
    path.write_bytes(content[:size])
    with pytest.raises(UserError, match=r"cut\.dcm"):
        ct_io.read_volume(tmp_path / "s" if folder else path)


def test_pixel_data_that_is_short_but_consistent_is_named(tmp_path):
    # SimpleITK reads this without complaint, filled with zeros.
    data = make_slice(stored_slice(0))
    data.PixelData = data.PixelData[:-100]
    path = save(data, tmp_path / "short.dcm")
    text = message(path)
    assert "412 bytes" in text and "need 512" in text


@pytest.mark.parametrize("name", [*FORMATS, "a.png"])
@pytest.mark.parametrize("keep", [0.1, 0.6, 0.99])
def test_truncated_files_are_named(tmp_path, name, keep):
    unit = {"unit": "grey"} if name == "a.png" else {}
    shape = (1, 32, 32) if name == "a.png" else (4, 32, 32)
    volume = volume_of(random_hu(shape) + 1024, integer=True, **unit)
    path = ct_io.write_volume(volume, tmp_path / name)
    data = path.with_suffix(".raw") if name == "a.mhd" else path
    content = data.read_bytes()
    data.write_bytes(content[: int(len(content) * keep)])
    message(path)


def test_gzip_with_a_short_content_is_named(tmp_path):
    # A whole gzip stream around a truncated NIfTI.
    path = ct_io.write_volume(volume_of(random_hu()), tmp_path / "b.nii")
    content = path.read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:-10]))
    assert "truncated" in message(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", [*FORMATS, "a.png", "a.dcm", "a.txt", "a"])
def test_not_an_image_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no image at all\n" * 40)
    message(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    assert "empty file" in message(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_png_is_refused(tmp_path, mode):
    image = PIL.Image.fromarray(stored_slice(0, high=256).astype(np.uint8))
    image.convert("RGB").convert(mode).save(tmp_path / "a.png")
    text = message(tmp_path / "a.png")
    assert "alpha" in text or "colour" in text
    assert "8 or 16 bits" in text and "one grey channel" in text


def test_png_of_few_bits_is_refused(tmp_path):
    PIL.Image.new("1", (8, 8)).save(tmp_path / "a.png")
    assert "black and white" in message(tmp_path / "a.png")


def test_vectors_and_time_series_are_refused(tmp_path):
    vector = sitk.GetImageFromArray(random_hu((3, 4, 5, 2)), isVector=True)
    sitk.WriteImage(vector, tmp_path / "vector.nrrd")
    assert "2 channels" in message(tmp_path / "vector.nrrd")
    four = sitk.JoinSeries([sitk.GetImageFromArray(random_hu())] * 2)
    sitk.WriteImage(four, tmp_path / "four.nii")
    assert "4-dimensional" in message(tmp_path / "four.nii")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_is_refused(tmp_path, name, value):
    hu = random_hu()
    hu[0, 0, 0] = value
    ct_io.write_volume(volume_of(hu), tmp_path / name)
    text = message(tmp_path / name)
    assert "1 voxels are not finite" in text or "1 of 30 pixels" in text


def test_bad_window_is_refused(tmp_path):
    assert "width above 0" in message(tmp_path / "a.png", window=(0.0, 0.0))


def test_errors_of_simpleitk_leave_its_warnings_as_they_were(tmp_path):
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    (tmp_path / "a.nrrd").write_bytes(b"nothing")
    message(tmp_path / "a.nrrd")
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == before


# --- writing ---------------------------------------------------------------------


def test_dicom_series_round_trip(tmp_path):
    make_series(tmp_path / "in", 4)
    volume = ct_io.read_volume(tmp_path / "in")
    new = ct_io.with_hu(volume, volume.hu + 0.4)
    ct_io.write_volume(
        new,
        tmp_path / "out",
        series_description="purified",
        derivation_description="lq_bar",
    )
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"IM00{i}" for i in (1, 2, 3, 4)]
    read = ct_io.read_volume(tmp_path / "out")
    np.testing.assert_array_equal(read.hu, volume.hu)
    assert read.spacing_mm == volume.spacing_mm
    assert read.origin_mm == volume.origin_mm
    assert read.direction == volume.direction
    uids = set()
    for name in names:
        was = pydicom.dcmread(tmp_path / "in" / name)
        now = pydicom.dcmread(tmp_path / "out" / name)
        uids.add(now.SOPInstanceUID)
        assert now.SOPInstanceUID == now.file_meta.MediaStorageSOPInstanceUID
        assert now.SOPInstanceUID != was.SOPInstanceUID
        assert now.SeriesInstanceUID != was.SeriesInstanceUID
        assert now.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert now.SeriesDescription == "purified"
        assert now.DerivationDescription == "lq_bar"
        for key in (
            *("SOPClassUID", "Modality", "PatientID", "PatientName"),
            *("StudyInstanceUID", "FrameOfReferenceUID", "InstanceNumber"),
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
            *("SliceThickness", "Rows", "Columns"),
        ):
            assert now[key].value == was[key].value, key
        hu = now.pixel_array * float(now.RescaleSlope) + float(now.RescaleIntercept)
        np.testing.assert_array_equal(hu, was.pixel_array + float(was.RescaleIntercept))
        # Nothing of this image is below -1024: stored values look unsigned.
        assert now.pixel_array.min() >= 0
    assert len(uids) == 4
    assert (
        len({pydicom.dcmread(tmp_path / "out" / n).SeriesInstanceUID for n in names})
        == 1
    )


def test_tags_of_every_kind_outlive_a_derivation(tmp_path):
    data = make_slice(stored_slice(1))
    kept = {
        "AcquisitionUID": "1.2.3",  # younger than SimpleITK's dictionary
        "SyntheticData": "YES",
        "CTDIvol": 10.625,
        "SpiralPitchFactor": 0.9,
        "PregnancyStatus": 4,
        "WindowCenter": [-600, 40],
        "PatientComments": "Größe geschätzt",
    }
    for key, value in kept.items():
        setattr(data, key, value)
    phantom = pydicom.Dataset()
    phantom.CodeValue, phantom.CodingSchemeDesignator = "113691", "DCM"
    phantom.CodeMeaning = "IEC Body Dosimetry Phantom"
    data.CTDIPhantomTypeCodeSequence = [phantom]
    # Not a whole number: scanners write it, pydicom would refuse it.
    data.add(DataElement(0x00181151, "IS", "188.5", already_converted=True))
    data.SpecificCharacterSet = "ISO_IR 192"
    data.private_block(0x0019, "maker", create=True).add_new(1, "LO", "secret")
    volume = ct_io.read_volume(save(data, tmp_path / "a.dcm"))
    now = pydicom.dcmread(ct_io.write_volume(volume, tmp_path / "b.dcm"))
    for key, value in kept.items():
        assert now[key].value == value, key
    assert now.CTDIPhantomTypeCodeSequence == [phantom]
    assert now.get_item(0x00181151).value.strip() == b"188.5"
    assert not [tag for tag in now.keys() if tag.is_private]
    (source,) = now.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == data.SOPInstanceUID
    again = ct_io.write_volume(
        ct_io.read_volume(tmp_path / "b.dcm"), tmp_path / "c.dcm"
    )
    (source,) = pydicom.dcmread(again).SourceImageSequence
    assert source.ReferencedSOPInstanceUID == now.SOPInstanceUID


def test_required_attributes_are_present_without_a_source(tmp_path):
    ct_io.write_volume(volume_of(random_hu(), name="nifti"), tmp_path / "out")
    data = pydicom.dcmread(tmp_path / "out" / "0001.dcm")
    for key in ("StudyDate", "AccessionNumber", "PatientID", "KVP", "SeriesNumber"):
        assert data[key].value in ("", None)
    assert data.PatientName == "nifti" and data.StudyInstanceUID
    assert "SourceImageSequence" not in data


def test_padding_tags_do_not_outlive_the_padding(tmp_path):
    stored = stored_slice(1, low=100)
    stored[0] = 63
    path = save(make_slice(stored, padding=63), tmp_path / "a.dcm")
    volume = ct_io.read_volume(path)
    changed = ct_io.with_hu(volume, np.full_like(volume.hu, 63 - 1024))
    ct_io.write_volume(changed, tmp_path / "b.dcm")
    assert "PixelPaddingValue" not in pydicom.dcmread(tmp_path / "b.dcm")
    np.testing.assert_array_equal(ct_io.read_volume(tmp_path / "b.dcm").hu, changed.hu)


@pytest.mark.parametrize("top", [3071, 32767])
def test_any_volume_can_become_dicom(tmp_path, top):
    hu = random_hu()
    hu[0, 0, 0], hu[0, 0, 1] = top, -1900
    volume = volume_of(hu, name="from nifti")
    ct_io.write_volume(volume, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["0001.dcm", "0002.dcm", "0003.dcm", "0004.dcm"]
    read = ct_io.read_volume(tmp_path / "out")
    np.testing.assert_array_equal(read.hu, hu)
    np.testing.assert_allclose(read.spacing_mm, volume.spacing_mm)
    np.testing.assert_allclose(read.origin_mm, volume.origin_mm)
    np.testing.assert_allclose(read.direction, volume.direction)


def test_masks_are_zero_and_one_or_black_and_white(tmp_path):
    mask = (random_hu((1, 6, 5)) > 0).astype(np.float32)
    volume = volume_of(mask, unit="mask", bits=8)
    for name in ("m.nii.gz", "m.dcm"):
        ct_io.write_volume(volume, tmp_path / name)
        np.testing.assert_array_equal(ct_io.read_volume(tmp_path / name).hu, mask)
    image = sitk.ReadImage(tmp_path / "m.nii.gz")
    assert image.GetPixelID() == sitk.sitkUInt8
    ct_io.write_volume(volume, tmp_path / "m.png")
    np.testing.assert_array_equal(
        np.asarray(PIL.Image.open(tmp_path / "m.png")), mask[0] * 255
    )


@pytest.mark.parametrize("name", ["out", "a.nii", "a.mhd", "a.dcm"])
def test_existing_output_is_replaced_only_with_overwrite(tmp_path, name):
    old, new = volume_of(random_hu((1, 4, 4))), volume_of(random_hu((1, 4, 4), 1))
    path = ct_io.write_volume(old, tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: exists already"):
        ct_io.write_volume(new, path)
    np.testing.assert_array_equal(ct_io.read_volume(path).hu, old.hu)
    ct_io.write_volume(new, path, overwrite=True)
    np.testing.assert_array_equal(ct_io.read_volume(path).hu, new.hu)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_folder_with_more_than_slices_is_never_replaced(tmp_path):
    volume = volume_of(random_hu())
    ct_io.write_volume(volume, tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").write_text("x" * 200)
    with pytest.raises(UserError, match=r"thesis\.txt"):
        ct_io.write_volume(volume, tmp_path / "out", overwrite=True)
    with pytest.raises(UserError, match="folder is in the way"):
        (tmp_path / "a.nii").mkdir()
        ct_io.write_volume(volume, tmp_path / "a.nii", overwrite=True)


def test_format_overrules_the_extension(tmp_path):
    volume = volume_of(random_hu())
    path = ct_io.write_volume(volume, tmp_path / "scan.nii", format="dicom-series")
    np.testing.assert_array_equal(ct_io.read_volume(path).hu, volume.hu)
    one = volume_of(random_hu((1, 4, 4)))
    path = ct_io.write_volume(one, tmp_path / "slice", format="dicom")
    np.testing.assert_array_equal(ct_io.read_volume(path).hu, one.hu)
    with pytest.raises(UserError, match="only under that format"):
        ct_io.write_volume(one, tmp_path / "a.nii", format="nrrd")


@pytest.mark.parametrize("name", ["out", "a.nii"])
def test_a_failed_write_leaves_what_was_there(tmp_path, name):
    volume = volume_of(random_hu(), integer=True)
    path = ct_io.write_volume(volume, tmp_path / name)
    bad = ct_io.with_hu(volume, np.full_like(volume.hu, 1e6))
    with pytest.raises(UserError, match="int16"):
        ct_io.write_volume(bad, path, overwrite=True)
    np.testing.assert_array_equal(ct_io.read_volume(path).hu, volume.hu)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_series_that_cannot_be_moved_in_gives_the_old_one_back(tmp_path, monkeypatch):
    old, new = volume_of(random_hu()), volume_of(random_hu(seed=1))
    path = ct_io.write_volume(old, tmp_path / "out")
    replace = os.replace

    def refuse(source, target):
        if str(source).endswith("new"):
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        ct_io.write_volume(new, path, overwrite=True)
    np.testing.assert_array_equal(ct_io.read_volume(path).hu, old.hu)
    assert len(list(tmp_path.iterdir())) == 1


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "ref").touch()
    (tmp_path / "dir").mkdir()
    path = ct_io.write_volume(volume_of(random_hu()), tmp_path / "a.nii")
    folder = ct_io.write_volume(volume_of(random_hu()), tmp_path / "out")
    assert (
        stat.S_IMODE(path.stat().st_mode) == (tmp_path / "ref").stat().st_mode & 0o777
    )
    assert (
        stat.S_IMODE(folder.stat().st_mode) == (tmp_path / "dir").stat().st_mode & 0o777
    )


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    volume = volume_of(random_hu())
    with pytest.raises(UserError, match="PNG holds one slice, volume has 4"):
        ct_io.write_volume(volume, tmp_path / "a.png")
    with pytest.raises(UserError, match="single DICOM file holds one slice"):
        ct_io.write_volume(volume, tmp_path / "a.dcm")
    one = volume_of(random_hu((1, 4, 4)))
    with pytest.raises(UserError, match="through a window"):
        ct_io.write_volume(one, tmp_path / "a.png")
    with pytest.raises(UserError, match="grey values, HU are needed"):
        ct_io.write_volume(dataclasses.replace(one, unit="grey"), tmp_path / "out")


def test_unreadable_file_is_a_user_error(tmp_path, monkeypatch):
    path = ct_io.write_volume(volume_of(random_hu()), tmp_path / "a.nii")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nibabel.load", refuse)
    assert "Permission denied" in message(path)


@pytest.mark.parametrize(
    ("hu", "text"),
    [
        (np.zeros((4, 4), np.float32), "float32 .slices, rows, columns."),
        (np.zeros((1, 4, 4)), "float64"),
    ],
)
def test_volume_checks_its_array(hu, text):
    with pytest.raises(ValueError, match=text):
        ct_io.Volume(hu=hu, spacing_mm=(1.0, 1.0, 1.0))


def test_volume_checks_spacing_and_new_values():
    with pytest.raises(ValueError, match="above 0 mm"):
        volume_of(random_hu(), spacing_mm=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="new values have shape"):
        ct_io.with_hu(volume_of(random_hu()), np.zeros((1, 2, 3)))


def test_moving_a_series_keeps_it(tmp_path):
    hu = make_series(tmp_path / "s")
    shutil.move(tmp_path / "s", tmp_path / "t")
    np.testing.assert_array_equal(ct_io.read_volume(str(tmp_path / "t")).hu, hu)

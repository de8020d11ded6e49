"""The header elements that a derived slice keeps, read back with pydicom."""

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSNearLossless,
)

from ipv2 import ct_io
from tests.ipv2.ct_files import make_slice, save, stored_slice

# As encoded by a scanner: from PS3.5, annexes H, I and from what GDCM's archive holds.
NAMES = {
    "ISO_IR 100": "Müller^Jörg".encode("latin-1"),
    "ISO_IR 192": "Müller^Łukasz=山田^太郎".encode(),
    "GB18030": "Wang^XiaoDong=王^小东".encode("gb18030"),
    "\\ISO 2022 IR 149": b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7="
    b"\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    "\\ISO 2022 IR 87": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
    "ISO 2022 IR 13\\ISO 2022 IR 87": b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^"
    b"\x1b$BB@O:\x1b(J",
    "ISO 2022 IR 100\\ISO 2022 IR 149": b"M\xfcller^A=\x1b$)C\xfb\xf3",
    "": b"M\xfcller^A",  # no character set is stated, and the name is not ASCII
}


def raw(keyword, value):
    """Returns an element's bytes in explicit little endian."""
    tag = Tag(keyword)
    value += b" " * (len(value) % 2)
    vr = pydicom.datadict.dictionary_VR(tag)
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def derived(data, tmp_path, **options):
    """Reads and writes a slice, and returns the result."""
    volume = ct_io.read_volume(save(data, tmp_path / "a.dcm"))
    return pydicom.dcmread(ct_io.write_volume(volume, tmp_path / "b.dcm", **options))


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
@pytest.mark.parametrize("charset", NAMES)
def test_names_stay_the_bytes_they_are_in_their_character_set(
    tmp_path, charset, syntax
):
    data = make_slice(stored_slice(1))
    if charset:
        data.SpecificCharacterSet = charset.split("\\")
    else:
        del data.SpecificCharacterSet
    data[Tag("PatientName")] = raw("PatientName", NAMES[charset])
    data[Tag("InstitutionName")] = raw("InstitutionName", NAMES[charset][:6])
    data["PixelData"].VR = "OW"
    encodings = data._character_set
    data.set_original_encoding(syntax == "implicit", True, encodings)
    if syntax == "implicit":
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    now = derived(data, tmp_path, derivation_description="denoised")
    was = pydicom.dcmread(tmp_path / "a.dcm")
    for keyword in ("PatientName", "InstitutionName", "SpecificCharacterSet"):
        if keyword in was or charset:
            tag = Tag(keyword)
            assert now.get_item(tag).value == was.get_item(tag).value, keyword
    assert now.get_item(Tag("PatientName")).value.rstrip() == NAMES[charset]
    assert str(now.PatientName) == str(was.PatientName)
    assert ("SpecificCharacterSet" in now) == bool(charset)
    assert now.DerivationDescription == "denoised"


def test_a_big_endian_source_is_decoded(tmp_path):
    data = make_slice(stored_slice(1))
    data.SpiralPitchFactor, data.PregnancyStatus = 0.1 + 0.2, 4
    data.PixelData = data.pixel_array.astype(">u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    pydicom.dcmwrite(
        path, data, implicit_vr=False, little_endian=False, enforce_file_format=True
    )
    volume = ct_io.read_volume(path)
    now = pydicom.dcmread(ct_io.write_volume(volume, tmp_path / "b.dcm"))
    assert now.SpiralPitchFactor == 0.1 + 0.2 and now.PregnancyStatus == 4
    assert str(now.PatientName) == "Müller^Jörg"


def test_doubles_keep_every_digit_and_windows_their_words(tmp_path):
    data = make_slice(stored_slice(1))
    kept = {
        "SingleCollimationWidth": 0.6000000238418579,
        "ExposureInmAs": 1 / 3,
        "VOILUTFunction": "SIGMOID",
        "WindowCenter": [40, -600],
        "WindowWidth": [400, 1500],
        "WindowCenterWidthExplanation": ["SOFT", "LUNG"],
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 10.5,
        "LossyImageCompressionMethod": "ISO_10918_1",
        "BurnedInAnnotation": "NO",
    }
    for keyword, value in kept.items():
        setattr(data, keyword, value)
    now = derived(data, tmp_path)
    for keyword, value in kept.items():
        assert now[keyword].value == value, keyword


def test_a_lossy_transfer_syntax_sets_the_flags(tmp_path):
    data = make_slice(stored_slice(1, size=64))
    data.compress(JPEGLSNearLossless, jls_error=2)
    now = derived(data, tmp_path)
    assert now.LossyImageCompression == "01"
    assert now.LossyImageCompressionMethod == "ISO_14495_1"
    packed = len(data.PixelData)
    assert now.LossyImageCompressionRatio == pytest.approx(64 * 64 * 2 / packed, 0.05)


def test_the_source_s_derivation_comes_first(tmp_path):
    data = make_slice(stored_slice(1))
    data.DerivationDescription = "resampled"
    now = derived(data, tmp_path, derivation_description="denoised")
    assert now.DerivationDescription == "resampled; denoised"
    data.DerivationDescription = "x" * 1024
    now = derived(data, tmp_path / "c", derivation_description="denoised")
    assert len(now.DerivationDescription) == 1024
    assert now.DerivationDescription.endswith("xx; denoised")


@pytest.mark.parametrize(
    ("there", "kept"), [("both", True), ("index", False), ("phantom", False)]
)
def test_ctdi_stays_with_its_phantom_or_not_at_all(tmp_path, there, kept):
    data = make_slice(stored_slice(1))
    if there != "phantom":
        data.CTDIvol = 10.625
    if there != "index":
        phantom = pydicom.Dataset()
        phantom.CodeValue, phantom.CodingSchemeDesignator = "113691", "DCM"
        phantom.CodeMeaning = "IEC Body Dosimetry Phantom"
        data.CTDIPhantomTypeCodeSequence = [phantom]
    now = derived(data, tmp_path)
    assert ("CTDIvol" in now, "CTDIPhantomTypeCodeSequence" in now) == (kept, kept)


def test_overlays_and_private_elements_are_dropped(tmp_path):
    data = make_slice(stored_slice(1))
    data.private_block(0x0019, "maker", create=True).add_new(1, "LO", "secret")
    data.add_new(0x60000010, "US", 16)
    data.add_new(0x60000022, "LO", "drawn")
    now = derived(data, tmp_path)
    assert not [tag for tag in now.keys() if tag.is_private or tag.group == 0x6000]


@pytest.mark.parametrize("padding", [None, -32768])
def test_the_lowest_stored_value_is_padding(tmp_path, padding):
    stored = stored_slice(1)
    stored[:, :3] = -32768  # -33792 HU
    data = make_slice(stored, signed=True, bits=16, padding=padding)
    volume = ct_io.read_volume(save(data, tmp_path / "a.dcm"))
    assert np.all(volume.hu[0, :, :3] == -1024)
    np.testing.assert_array_equal(volume.hu[0, :, 3:], stored[:, 3:] - 1024)


def test_water_is_not_believed_to_be_padding(tmp_path, caplog):
    hu = stored_slice(1) - 1024
    hu[4:9] = 0
    data = make_slice(hu, signed=True, bits=16, intercept="0", padding=0)
    for index in range(2):
        data.ImagePositionPatient = [0, 0, index]
        save(data, tmp_path / "s" / f"{index}.dcm")
    volume = ct_io.read_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.hu, [hu, hu])
    told = [line for line in caplog.messages if "PixelPaddingValue" in line]
    assert len(told) == 1 and "0 to 0 HU" in told[0]


def test_padding_beyond_every_tissue_is_believed(tmp_path):
    stored = stored_slice(1)
    stored[:, :3] = 63488  # -2048 in pixels that count as unsigned
    data = make_slice(stored, bits=16, padding=63488)
    volume = ct_io.read_volume(save(data, tmp_path / "a.dcm"))
    assert np.all(volume.hu[0, :, :3] == -1024)


def test_a_garbled_number_is_kept_unchanged(tmp_path):
    data = make_slice(stored_slice(1))
    for keyword, text in {"Exposure": "150.5", "SliceLocation": "1,5"}.items():
        vr = pydicom.datadict.dictionary_VR(keyword)
        element = DataElement(keyword, vr, text, already_converted=True)
        data[element.tag] = element
    now = derived(data, tmp_path)
    assert now.get_item(Tag("Exposure")).value.strip() == b"150.5"
    assert now.get_item(Tag("SliceLocation")).value.strip() == b"1,5"


@pytest.mark.parametrize("hu", [-905, -1000])
def test_a_value_of_lung_or_air_is_no_padding_unless_at_the_border(tmp_path, hu):
    stored = stored_slice(1, size=32)
    stored[::5, ::3] = hu + 1024  # all over the image
    path = save(make_slice(stored, padding=hu + 1024), tmp_path / "a.dcm")
    np.testing.assert_array_equal(ct_io.read_volume(path).hu[0], stored - 1024)
    stored = stored_slice(1, size=32)
    stored[:4] = hu + 1024
    path = save(make_slice(stored, padding=hu + 1024), tmp_path / "b.dcm")
    assert np.all(ct_io.read_volume(path).hu[0, :4] == -1024)


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_empty_elements_stay_empty(tmp_path, syntax):
    data = make_slice(stored_slice(1))
    for keyword in ("Laterality", "PatientComments", "PregnancyStatus"):
        setattr(data, keyword, None)
    if syntax == "implicit":
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    now = derived(data, tmp_path)
    for keyword in ("Laterality", "PatientComments", "PregnancyStatus"):
        assert keyword in now and now[keyword].is_empty, keyword

import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement

from ipv2.ct_io import at_dose
from ipv2.ct_io.dicom_header import text_of


def header(**texts):
    data = Dataset()
    for keyword, value in texts.items():
        vr = dictionary_VR(keyword)
        data.add(DataElement(keyword, vr, value, already_converted=True))
    return data


def test_all_exposures_are_scaled_and_the_rest_stays():
    source = header(
        XRayTubeCurrent="188 ",
        Exposure="150",
        ExposureInmAs=150.5,
        CTDIvol=10.612345678901234,
        KVP="120",
        IrradiationEventUID="1.2.3",
    )
    result = at_dose(source, 0.25)
    assert {e.keyword: text_of(result, e.keyword) for e in result} == {
        "XRayTubeCurrent": "47",
        "Exposure": "38",  # 37.5 mAs to the even one
        "ExposureInuAs": "37500",  # the digits
        "ExposureInmAs": "37.625",
        "CTDIvol": str(10.612345678901234 / 4),  # all of them: it is a double
        "KVP": "120",
        "SyntheticData": "YES",
    }
    assert text_of(source, "Exposure") == "150"


@pytest.mark.parametrize(
    ("was", "now"), [("20", "1"), ("0", "0"), ("", ""), ("auto", "auto"), ("60.5", "1")]
)
def test_a_current_is_never_scaled_to_nothing_or_made_up(was, now):
    result = at_dose(header(XRayTubeCurrent=was), 0.01)
    assert text_of(result, "XRayTubeCurrent") == now


def test_exposure_in_uas_is_used_where_it_is():
    source = header(Exposure="150", ExposureInuAs="150200")
    assert text_of(at_dose(source, 0.1), "ExposureInuAs") == "15020"


def test_nothing_is_added_where_nothing_is_known():
    assert at_dose(Dataset(), 0.5) == header(SyntheticData="YES")

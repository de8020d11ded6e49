import pytest

from ipv2.ct_io import at_dose


def test_all_exposures_are_scaled_and_the_rest_stays():
    tags = {
        "0018|1151": "188 ",
        "0018|1152": "150",
        "0018|9332": "150.5",
        "0018|9345": "10.6",
        "0018|0060": "120",
        "0008|3010": "1.2.3",
    }
    assert at_dose(tags, 0.25) == {
        "0018|1151": "47",
        "0018|1152": "38",  # 37.5 mAs to the even one
        "0018|1153": "37500",  # the digits
        "0018|9332": "37.625",
        "0018|9345": "2.65",
        "0018|0060": "120",
        "0008|001c": "YES",
    }


@pytest.mark.parametrize(
    ("was", "now"), [("20", "1"), ("0", "0"), ("", ""), ("auto", "auto"), ("60.5", "1")]
)
def test_a_current_is_never_scaled_to_nothing_or_made_up(was, now):
    assert at_dose({"0018|1151": was}, 0.01)["0018|1151"] == now


def test_exposure_in_uas_is_used_where_it_is():
    tags = {"0018|1152": "150", "0018|1153": "150200"}
    assert at_dose(tags, 0.1)["0018|1153"] == "15020"


def test_nothing_is_added_where_nothing_is_known():
    assert at_dose({}, 0.5) == {"0008|001c": "YES"}

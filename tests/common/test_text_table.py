import pytest

from common.text_table import format_table


def test_table_aligns_text_left_and_numbers_right():
    table = format_table(
        ["run", "PSNR\nlung", "slices"],
        [["input", 7.123, 37], ["ipv2", -31.0, None]],
        digits=(0, 1, 0),
        title="quality",
    )
    assert table.split("\n") == [
        "quality",
        "        PSNR",
        "run     lung  slices",
        "-----  -----  ------",
        "input    7.1      37",
        "ipv2   -31.0       -",
    ]


def test_table_without_rows_is_its_header():
    assert format_table(["a", "bc"], []) == "a  bc\n-  --"


def test_table_refuses_ragged_input():
    with pytest.raises(ValueError, match="row 1 has 1 cells, the header 2"):
        format_table(["a", "b"], [["x", 1], ["y"]])
    with pytest.raises(ValueError, match="2 columns but 3 numbers of digits"):
        format_table(["a", "b"], [], digits=[1, 2, 3])

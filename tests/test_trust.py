"""The main difficult cases on task denoise; all of them on all tasks if slow."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.trust import create_bench
from tests.benchmarks.trust_checks.batch_rows import batch_row
from tests.cases.dicom_cases import DICOM_CASES
from tests.cases.image_cases import IMAGE_CASES

ROOT = Path(__file__).parents[1]
CASES = {case.name: case for case in (*DICOM_CASES, *IMAGE_CASES)}
# One or two of each kind.
MAIN = (
    *("plain", "slope_varies", "signed_12_bits_masked", "big_endian", "jpeg_ls"),
    *("padding_-2000", "padding_-32768", "padding_0_is_water", "intercept_0"),
    *("uneven_70_64_86", "drift_0.7_mm", "tilt_3_degrees", "location_opposite"),
    *("slice_missing", "slice_missing_allowed", "same_position", "spacing_missing"),
    *("spacing_garbage", "no_orientation", "name_ir_149", "numbers_of_64_bits"),
    *("lossy_jpeg_2000", "derived_before", "last_empty", "last_head_destroyed"),
    *("scout_alone", "linked_folder", "looped_folder", "junk", "frames_shuffled"),
    *("capital_nii", "mhd_no_spacing", "plus_1024", "colours", "dangling_link"),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The plain series, and a network that adds 10 HU."""
    return create_bench(tmp_path_factory.mktemp("trust").resolve())


@pytest.mark.filterwarnings("ignore")  # builders write what the standard forbids
@pytest.mark.parametrize("name", MAIN)
def test_a_difficult_case_comes_out_right_or_is_refused_well(bench, name):
    row = batch_row(CASES[name], "denoise", bench)
    assert row.verdict in ("right", "refused well"), row.why


@pytest.mark.slow
def test_the_whole_table_has_nothing_wrong():
    command = [sys.executable, "-m", "tests.benchmarks.trust"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""The main difficult cases on task denoise; all of them on all tasks if slow."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.benchmarks.trust import GROUPS, batches, create_bench
from tests.benchmarks.trust_checks.batch_rows import batch_rows
from tests.cases.dicom_cases import DICOM_CASES
from tests.cases.image_cases import IMAGE_CASES

ROOT = Path(__file__).parents[1]
CASES = {case.name: case for case in (*DICOM_CASES, *IMAGE_CASES)}
# One of each kind.
MAIN = (
    *("plain", "signed_12_bits_masked", "padding_-32768", "intercept_0"),
    *("uneven_70_64_86", "slice_missing", "spacing_missing", "no_orientation"),
    *("name_ir_149", "derived_before", "last_head_destroyed", "linked_folder"),
    *("frames_shuffled", "capital_nii", "plus_1024", "dangling_link"),
)


def test_the_main_difficult_cases_come_out_right_or_are_refused_well(tmp_path):
    bench = create_bench(tmp_path.resolve())
    chosen = [dataclasses.replace(CASES[name], tasks=("denoise",)) for name in MAIN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # builders write what the standard forbids
        rows = [
            row
            for task, cases in batches(chosen)
            for row in batch_rows(cases, task, bench)
        ]
    assert len(rows) == len(MAIN)
    wrong = [str(row) for row in rows if row.verdict == "wrong"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("group", GROUPS)
def test_nothing_in_the_table_is_wrong(group):
    command = [sys.executable, "-m", "tests.benchmarks.trust", "--group", group]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""Outputs of other software: judged as ours, or named, skipped and counted."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from common.errors import UserError
from ipv2 import ct_io
from ipv2.tasks.check import check_config
from ipv2.tasks.evaluate import evaluate_run
from ipv2.tasks.outputs import open_outputs
from ipv2.tasks.sources import open_sources
from tests.ipv2.pair_folders import config_of, write_pairs
from tests.results_schema import documented_keys, keys_of

PATIENTS = ("p1", "p2", "p3")


@pytest.fixture
def config(tmp_path):
    """Pairs of three patients, all held out, and an empty folder of outputs."""
    write_pairs(tmp_path / "root", PATIENTS, size=48)
    (tmp_path / "out").mkdir()
    made = config_of(
        tmp_path,
        data__split=(0.0, 0.0, 1.0),
        evaluate__label="gt",
        evaluate__filters=(),
        evaluate__outputs=str(tmp_path / "out"),
    )
    check_config(made, takes_outputs=True)
    return made


def gt_of(config, patient):
    return ct_io.read_volume(f"{config.data.root}/gt/{patient}/scan.nii")


def write_output(config, patient, volume, name="scan.nii.gz"):
    path = f"{config.evaluate.outputs}/{patient}/{name}"
    ct_io.write_volume(volume, path)
    return path


def judged(config):
    return open_outputs(config, open_sources(config).held_out)


@pytest.mark.slow
def test_outputs_are_measured_with_the_labels_and_the_code_of_a_network(
    config, tmp_path
):
    for patient in PATIENTS[:2]:
        write_output(config, patient, gt_of(config, patient))
    results = evaluate_run(config, tmp_path / "work")
    block = results["datasets"]["paired_folders"]
    assert block["label"] == "gt" and block["n_patients"] == 2
    assert block["output"]["rmse_hu"]["full"] == 0 < block["input"]["rmse_hu"]["full"]
    assert block["output"]["vif"]["full"] == pytest.approx(1, abs=1e-4)
    assert results["n_slices"] == 4
    found, documented = keys_of(results), documented_keys()
    assert found <= documented
    assert {key for key in documented - found if key.startswith("outputs.")} == set()
    report = results["outputs"]
    assert report["n_volumes"] == 2 and report["n_slices"] == 4
    assert report["n_slices_without_output"] == 2 and report["n_not_held_out"] == 0
    (missing,) = report["skipped"]
    assert missing["path"].endswith("p3/scan.nii")
    assert missing["reason"] == "no output belongs to it"
    work = tmp_path / "work"
    assert json.loads((work / "evaluation.json").read_text()) == results
    text = (work / "evaluation.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 4 * 2 and not (work / "export").exists()
    # No training lies there, whose page would be in the way.
    assert "other software" in (work / "report.html").read_text()


def changed(volume, **changes):
    return dataclasses.replace(volume, **changes)


def spoiled(kind, volume):
    hu = volume.hu
    match kind:
        case "size":
            return changed(volume, hu=hu[:, :40])
        case "spacing":
            return changed(volume, spacing_mm=(2.0, 0.7, 0.7))
        case "unit":
            return changed(volume, hu=(hu + 1024) / 4096, integer=False)
        case "offset":
            return changed(volume, hu=hu + 1024)
        case "constant":
            return changed(volume, hu=np.full_like(hu, -40))
        case "place":
            return changed(volume, origin_mm=(1.0, 0.0, 0.0))
        case "nan":
            bad = hu.copy()
            bad[0, 0, 0] = np.nan
            return changed(volume, hu=bad, integer=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("size", r"lq and output differ in pixels"),
        ("spacing", r"pixel spacing \(mm\)"),
        ("unit", "are not HU"),
        ("constant", "span less than 100"),
        ("place", r"lie \(1\.00, 0\.00, 0\.00\) mm beside those of lq"),
        ("nan", "not finite"),
    ],
)
def test_an_output_that_differs_is_named_skipped_and_counted(config, kind, said):
    write_output(config, "p1", gt_of(config, "p1"))
    path = f"{config.evaluate.outputs}/p2/scan.mha"
    _write_raw(spoiled(kind, gt_of(config, "p2")), path)
    write_output(config, "p3", gt_of(config, "p3"))
    found = judged(config)
    assert found.report["n_volumes"] == 2 and found.report["n_slices"] == 4
    (skipped,) = found.report["skipped"]
    assert skipped["path"] == path
    with pytest.raises(UserError, match=said):
        config.strict = True
        judged(config)


def _write_raw(volume, path):
    """Writes any values, with SimpleITK."""

    Path(path).parent.mkdir(parents=True)
    image = sitk.GetImageFromArray(volume.hu)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    sitk.WriteImage(image, path)


def test_names_that_match_nothing_and_two_of_one_name_are_skipped(config):
    write_output(config, "p1", gt_of(config, "p1"))
    write_output(config, "p2", gt_of(config, "p2"))
    write_output(config, "p2", gt_of(config, "p2"), "scan.mha")
    write_output(config, "p9", gt_of(config, "p3"))
    reasons = [one["reason"] for one in judged(config).report["skipped"]]
    assert sorted(reasons) == [
        *("2 outputs belong to 'p2/scan'; keep one",) * 2,
        *("no output belongs to it",) * 2,
        "no volume of lq has its name or, for DICOM, its UIDs",
    ]


def test_outputs_of_patients_in_training_are_counted_but_not_judged(config):
    config.data.split = (0.8, 0.1, 0.1)
    config.data.test_patients = ("p1",)
    for patient in PATIENTS:
        write_output(config, patient, gt_of(config, patient))
    # Files that are no images are nobody's outputs: the records of task denoise.
    (Path(config.evaluate.outputs) / "p1" / "scan.nii.gz.json").write_text("{}")
    config.strict = True
    report = judged(config).report
    assert report["n_volumes"] == 1 and report["n_not_held_out"] == 2
    assert report["skipped"] == []


def test_fewer_slices_are_matched_by_position(config):
    gt = gt_of(config, "p1")
    second = changed(gt, hu=gt.hu[1:], origin_mm=tuple(gt.position_mm(1)))
    write_output(config, "p1", second)
    found = judged(config)
    assert found.report["n_slices"] == 1
    record = found.slices[0]
    assert int(record["slice"]) == 1
    np.testing.assert_array_equal(record["output"], gt.hu[1])


def test_without_any_output_of_the_slices_held_out_it_is_refused(config):
    with pytest.raises(UserError, match="holds no output of a slice that is held out"):
        judged(config)


def test_only_evaluate_reads_outputs_and_it_needs_the_inputs(config):
    with pytest.raises(UserError, match=r"evaluate\.outputs: .* only --task evaluate"):
        check_config(config)
    config.data.root = ""
    with pytest.raises(UserError, match=r"without config\.data\.root"):
        check_config(config, takes_outputs=True)

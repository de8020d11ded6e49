"""The phantom's dataset: schema, splits by patient, noise of the configured dose."""

import numpy as np
import pytest

from common.dataset import load_split
from common.errors import UserError
from ipv2.datasets.phantom import Phantom, patient_records, phantom_config
from ipv2.kernels.photon_noise import DoseParams

OPTIONS = {"size": 64, "patients": (2, 1, 1), "slices": 8}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return Phantom(config=phantom_config(**OPTIONS), data_dir=str(folder))


@pytest.mark.slow
def test_records_follow_the_pair_schema(builder):
    source = load_split(builder, "train")
    assert len(source) == 16
    record = source[9]
    for key in ("lq", "gt", "truth"):
        assert record[key].shape == (64, 64) and record[key].dtype == np.int16
        assert record[key].min() >= -1024
    assert record["lung"].dtype == np.uint8 and set(np.unique(record["lung"])) == {0, 1}
    np.testing.assert_allclose(record["spacing_mm"], 400 / 64)
    assert record["slice"] == 1 and record["name"] == record["patient"]


@pytest.mark.slow
def test_splits_share_no_patient(builder):
    patients = {
        split: {record["patient"] for record in load_split(builder, split)}
        for split in ("train", "val", "test")
    }
    assert [len(patients[split]) for split in patients] == [2, 1, 1]
    assert len(set.union(*patients.values())) == 4


@pytest.mark.slow
def test_truth_is_aligned_to_lq_and_gt_is_not(builder):
    for record in load_split(builder, "val"):
        lq, gt, truth = (
            record[key].astype(np.float64) for key in ("lq", "gt", "truth")
        )
        lung = record["lung"] == 1
        # Means of 8 x 8 pixels reduce noise, but not the difference of a moved chest.
        block = [
            np.abs((image - truth).reshape(8, 8, 8, 8).mean((1, 3))).max()
            for image in (lq, gt)
        ]
        assert block[1] > 2 * block[0]
        assert abs(np.mean((lq - truth)[lung])) < 15


@pytest.mark.slow
def test_low_dose_is_noisier_than_normal_dose_by_the_square_root():
    quiet, loud = (
        phantom_config(**OPTIONS, noise=DoseParams(dose=dose, photons=1e7))
        for dose in (0.999999, 0.01)
    )
    assert quiet.name != loud.name
    deviation = [
        np.mean(
            [
                np.std((r["lq"].astype(float) - r["truth"])[r["lung"] == 1])
                for r in patient_records(config, 0)
            ]
        )
        for config in (quiet, loud)
    ]
    # Rounding to whole HU adds 1/12 to the variance of both lq and truth.
    clean = np.sqrt(deviation[0] ** 2 - 1 / 6)
    assert deviation[1] / clean == pytest.approx(10, rel=0.1)


@pytest.mark.slow
def test_patients_depend_on_seed_and_number_alone():
    config = phantom_config(**OPTIONS)
    more = phantom_config(**(OPTIONS | {"patients": (9, 1, 1)}))
    for first, second in zip(
        patient_records(config, 1), patient_records(more, 1), strict=True
    ):
        np.testing.assert_array_equal(first["lq"], second["lq"])
    other = patient_records(phantom_config(**OPTIONS, seed=1), 1)
    assert np.any(other[0]["truth"] != patient_records(config, 1)[0]["truth"])
    assert config.name != more.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 16}, "size = 16"),
        ({"patients": (0, 0, 0)}, "not all 0"),
        ({"slices": 0}, "slices = 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        phantom_config(**options)

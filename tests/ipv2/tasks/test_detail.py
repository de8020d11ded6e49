"""Nodules in the truth: what input, output and filters keep of them."""

import json

import numpy as np
import pytest

from common.errors import UserError
from configs import ipv2_redcnn
from ipv2.datasets.phantom import patient_records, phantom_config
from ipv2.kernels.photon_noise import DoseParams
from ipv2.kernels.smoothing import gaussian
from ipv2.measures.nodules import NODULES
from ipv2.tasks import detail
from ipv2.tasks.check import check_config
from ipv2.tasks.detail import measure_detail, require_single_slices
from ipv2.tasks.sources import Joined

SIZE, SLICES = 192, 6


def config_of(**changes):
    config = ipv2_redcnn.get_config("smoke")
    config.noise.update({"dose": 0.1, "views": 96})
    config.evaluate.update({"detail": True, "batch_size": 2})
    config.update_from_flattened_dict(changes)
    check_config(config)
    return config


@pytest.fixture(scope="module")
def held_out():
    """Slices of two phantom patients."""
    phantom = phantom_config(
        size=SIZE, slices=SLICES // 2, noise=DoseParams(dose=0.1, views=16)
    )
    return [one for number in range(2) for one in patient_records(phantom, number)]


def images_of(dataset):
    """The truth is not at hand here: an output that is blurred, and one that is not."""

    def make(batch):
        image = batch["lq"][..., 0]
        return {"tv": image, "output": gaussian(image, 2.0)}

    return make


@pytest.fixture(scope="module")
def measured(held_out):
    return measure_detail(
        Joined({"phantom": held_out}), config_of(), images_of, images_of("phantom")
    )


@pytest.mark.slow
def test_every_kind_of_every_image_has_its_numbers(measured):
    block = measured["phantom"]
    assert block["n_slices"] == SLICES and block["n_patients"] == 2
    assert block["interval_over"] == "patients"
    assert block["observer"] == "knows the background"
    doses = block["doses"]
    assert block["dose"] == doses[0] == pytest.approx(0.1)
    assert doses == sorted(doses) and doses[-1] == 1
    assert set(block["nodules"]) == set(NODULES)
    for tissue, images in block["nodules"].items():
        assert list(images) == ["input", "tv", "output"]
        for kinds in images.values():
            assert list(kinds) == [str(one) for one in NODULES[tissue]]
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


@pytest.mark.slow
def test_the_undenoised_curve_begins_at_the_input(measured):
    block = measured["phantom"]
    for tissue, kinds in block["undenoised"].items():
        assert list(kinds) == [str(one) for one in NODULES[tissue]]
        for kind, curve in kinds.items():
            seen = block["nodules"][tissue]["input"][kind]["d_prime"]
            for key in ("value", "low", "high"):
                assert curve[key][0] == seen[key]
                assert len(curve[key]) == len(block["doses"])


@pytest.mark.slow
def test_the_curves_have_a_number_for_each_dose_and_blur_lies_below(measured):
    block = measured["phantom"]
    assert block["doses"] == [0.1, 0.25, 1.0]
    compared = 0
    for tissue, kinds in block["denoised"].items():
        for kind, curve in kinds.items():
            seen = block["nodules"][tissue]["output"][kind]["d_prime"]
            assert curve["value"][0] == seen["value"]
            assert len(curve["value"]) == len(block["doses"])
            if tissue == "lung" and None not in curve["value"]:
                scan = block["undenoised"][tissue][kind]["value"]
                assert np.mean(curve["value"]) < np.mean(scan)
                compared += 1
    assert compared >= 3


@pytest.mark.slow
def test_blur_takes_contrast_and_the_input_keeps_it(measured):
    images = measured["phantom"]["nodules"]["lung"]
    nodules = 0
    for kind, one in images["input"].items():
        assert images["tv"][kind] == one
        if one["count"]:
            blurred = images["output"][kind]["contrast_kept"]["mean"]
            # Of 200 to 900 HU in noise of some 30.
            assert one["contrast_kept"]["mean"] == pytest.approx(1, abs=0.3)
            assert blurred < 0.8 * one["contrast_kept"]["mean"]
            nodules += one["count"]
    assert nodules >= 10


@pytest.mark.slow
def test_blur_is_worth_less_dose_than_the_scan_itself(measured):
    images = measured["phantom"]["nodules"]["lung"]
    told = 0
    for kind, one in images["input"].items():
        if one["d_prime"]["value"] is not None:
            blurred = images["output"][kind]
            assert blurred["d_prime"]["value"] < one["d_prime"]["value"]
            assert blurred["equivalent_dose"]["dose"] is None
            assert "lowest dose already, 0.1" in blurred["equivalent_dose"]["note"]
            assert one["equivalent_dose"]["dose"] >= 0.1
            told += 1
    assert told


@pytest.mark.slow
def test_too_few_places_have_no_d_prime_and_it_is_said(held_out):
    made = config_of(**{"evaluate.slices": 1})
    found = measure_detail(Joined({"sample_ct": held_out}), made, images_of)
    block = found["sample_ct"]
    assert block["observer"] == "does not know the background"
    assert block["n_slices"] == 1 and block["interval_over"] == "slices"
    one = block["nodules"]["lung"]["output"]["10 mm of 100 HU"]
    assert one["d_prime"]["value"] is None and one["equivalent_dose"]["dose"] is None
    assert one["equivalent_dose"]["note"] == "too few places for d'"


def test_channels_without_noise_have_no_d_prime_and_it_is_said(caplog):
    kinds = np.tile(np.r_[np.arange(9), [-1] * 7], (10, 1))
    group = detail._Group(kinds, kinds > -2, {}, {}, {}, {})
    found = detail._detected("lung", group, np.zeros((10, 16, 3, 5)))
    assert {one.value for one in found.values()} == {None}
    assert {(one.present, one.absent) for one in found.values()} == {(10, 70)}
    assert "no d': the 5 channels" in caplog.text


def test_pairs_without_a_truth_are_refused(tmp_path):
    config = ipv2_redcnn.get_config("smoke")
    config.evaluate.detail = True
    config.data.root = str(tmp_path)
    with pytest.raises(UserError, match=r"evaluate\.detail: .*no known truth"):
        check_config(config)


def test_networks_that_see_neighbours_are_refused():
    require_single_slices(config_of(), 1)
    with pytest.raises(UserError, match="the network sees 3 slices, accepted: 1"):
        require_single_slices(config_of(), 3)


@pytest.mark.slow
def test_slices_that_hold_no_nodule_are_refused(held_out):
    small = [dict(held_out[0], truth=held_out[0]["truth"][60:80, 60:80])]
    with pytest.raises(UserError, match=r"has slices of 20 x 20 pixels|no slice of"):
        measure_detail(Joined({"phantom": small}), config_of(), images_of)
    flat = [dict(held_out[0], truth=np.zeros((SIZE, SIZE), np.int16))]
    with pytest.raises(UserError, match="no slice of phantom has an edge of 500 HU"):
        measure_detail(Joined({"phantom": flat}), config_of(), images_of)

"""Tests of ipv2.tasks.references and ipv2.tasks.strengths."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from configs import quickstart
from ipv2.measures import filters
from ipv2.tasks.check import check_config
from ipv2.tasks.evaluate import evaluate_filters, scalars_of
from ipv2.tasks.references import (
    Reference,
    described_alignment,
    evenly,
    preparation,
    references_of,
)
from ipv2.tasks.sources import Joined, Sources
from ipv2.tasks.strengths import Strength, choose_strengths

SIZE = 128


def chest(shift=0.0):
    """A body with two lungs, HU."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    body = np.where(x**2 + y**2 < 0.2, 40.0, -1000.0)
    lung = (np.abs(x) - 0.18) ** 2 + (y - shift) ** 2 < 0.02
    return np.where(lung, -850.0, body)


def records(count, *, truth=False, shift=0.0, noise_hu=60.0, patient="p"):
    """Slices, whose gt is of another breath for a shift."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(count):
        clean = chest()
        one = {
            "lq": (clean + noise_hu * rng.standard_normal(clean.shape)),
            "gt": chest(shift),
        }
        if truth:
            one["truth"] = clean
        made.append(
            {key: np.rint(value).astype(np.int16) for key, value in one.items()}
            | {"spacing_mm": np.float32([2.5, 2.5]), "patient": patient.encode()}
            | {"name": patient.encode(), "slice": np.int32(index)}
        )
    return made


def sources(*, train=None, val=None, test=None):
    """From lists of records by data set."""
    splits = {"train": train or {}, "val": val or {}, "test": test or {}}
    names = tuple({name for split in splits.values() for name in split})
    joined = {split: Joined(parts) for split, parts in splits.items()}
    return Sources(names, **joined, data={}, unavailable=())


def config(**keys):
    made = quickstart.get_config("smoke")
    made.evaluate.update(keys)
    check_config(made)
    return made


def test_places_are_spread_evenly():
    assert evenly(range(10), 4) == [0, 2, 5, 8]
    assert evenly([3, 5], 0) == evenly([3, 5], 9) == [3, 5]
    assert evenly([], 4) == []


def test_every_data_set_has_the_reference_that_is_known(caplog):
    found = sources(
        test={
            "phantom": records(1, truth=True, shift=0.1),
            "fixed": records(2),
            "breath": records(2, shift=0.1),
        },
        val={"other": records(1, truth=True)},
    )
    with caplog.at_level("INFO", logger="absl"):
        references = references_of(found, config())
    labels = {name: reference.label for name, reference in references.items()}
    assert labels == {
        "phantom": "truth",
        "fixed": "gt",
        "breath": "v2",
        "other": "truth",
    }
    assert "fixed: lq and gt are aligned: by correlation" in caplog.text
    assert "breath: lq and gt are not aligned: by correlation" in caplog.text
    assert "The reference is v2" in caplog.text
    assert references["fixed"].aligned and not references["breath"].aligned
    assert references["fixed"].described()["alignment"]["n_slices"] == 2
    assert references["phantom"] == Reference("truth")


@pytest.mark.parametrize("label", ["truth", "v1", "v2"])
def test_a_label_is_taken_by_name(label):
    found = sources(test={"a": records(1, truth=True)})
    assert references_of(found, config(label=label)) == {"a": Reference(label)}


@pytest.mark.parametrize(("shift", "aligned"), [(0.0, True), (0.1, False)])
def test_gt_is_taken_by_name_with_a_warning_if_it_is_not_aligned(
    shift, aligned, caplog
):
    found = sources(test={"a": records(1, truth=True, shift=shift)})
    with caplog.at_level("WARNING", logger="absl"):
        reference = references_of(found, config(label="gt"))["a"]
    assert reference.label == "gt" and reference.aligned
    assert reference.alignment.aligned == aligned
    assert ("a: lq and gt are not aligned" in caplog.text) != aligned


def test_a_truth_that_is_not_known_is_refused():
    found = sources(test={"mine": records(1)})
    with pytest.raises(UserError, match="got 'truth', but mine has no known truth"):
        references_of(found, config(label="truth"))


def test_slices_that_are_too_small_for_filters_are_refused():
    small = records(1, truth=True)
    small[0]["lq"] = small[0]["lq"][:20]
    with pytest.raises(UserError, match=r"a has slices of 20 x 128 pixels, accepted"):
        references_of(sources(test={"a": small}), config())
    references_of(sources(test={"a": small}), config(filters=()))


def test_too_little_structure_is_told():
    flat = records(1, noise_hu=0.0)
    for key in ("lq", "gt"):
        flat[0][key] = np.zeros((SIZE, SIZE), np.int16)
    reference = references_of(sources(test={"a": flat}), config())["a"]
    assert reference.label == "v2"
    text = described_alignment(reference.described())
    assert "It is not known whether" in text and "too little structure" in text


@pytest.mark.slow
def test_references_are_the_images_of_their_name():
    record = records(1, truth=True, shift=0.1)[0]
    batch = {
        key: jnp.asarray(record[key][(None, None) if key in ("lq", "gt") else None])
        for key in ("lq", "gt", "truth", "spacing_mm", "slice")
    }
    prepared = {k: preparation(k, config())(batch) for k in ("truth", "gt", "v1", "v2")}
    for name in ("truth", "gt"):
        np.testing.assert_array_equal(prepared[name]["reference"][0], record[name])
    v2 = prepared["v2"]["reference"]
    np.testing.assert_array_equal(prepared["truth"]["label"], v2)
    # Outside the lungs both test labels are gt; inside v1's is the noisy input.
    lung = np.asarray(prepared["truth"]["regions"]["lung"][0])
    v1 = np.asarray(prepared["v1"]["reference"][0])
    np.testing.assert_array_equal(v1[lung], record["lq"][lung])
    assert np.abs(np.asarray(v2[0])[lung] - record["lq"][lung]).max() > 20
    assert all("label" not in prepared[name] for name in ("gt", "v1", "v2"))
    assert preparation("gt", config()) is preparation("gt", config())


def strengths_of(found, **keys):
    made = config(**keys)
    return choose_strengths(found, references_of(found, made), made)


@pytest.mark.slow
def test_strengths_are_chosen_on_validation_slices_of_the_same_data_set(caplog):
    quiet = records(5, truth=True, noise_hu=20.0)
    loud = records(9, truth=True, noise_hu=150.0)
    test = {"quiet": quiet[:1], "loud": loud[:1]}
    found = sources(test=test, val={"quiet": quiet[1:], "loud": loud[1:]})
    with caplog.at_level("INFO", logger="absl"):
        strengths = strengths_of(found)
    assert set(strengths) == {"quiet", "loud"}
    assert set(strengths["loud"]) == {"gaussian", "tv"}
    for by_filter in strengths.values():
        for one in by_filter.values():
            assert one.chosen_on == "val" and one.n_slices == 4
    widths = [strengths[name]["gaussian"].strength for name in ("quiet", "loud")]
    assert widths[0] < widths[1]
    assert "loud: gaussian" in caplog.text and "4 validation slices" in caplog.text


@pytest.mark.slow
def test_without_validation_slices_strengths_are_chosen_on_training_slices():
    some = records(3, truth=True)
    chosen = strengths_of(sources(train={"a": some[:2]}, test={"a": some[2:]}))
    assert {one.chosen_on for one in chosen["a"].values()} == {"train"}
    # Where nothing is for test, val is what is reported: not to be chosen on.
    chosen = strengths_of(sources(train={"a": some[:2]}, val={"a": some[2:]}))
    assert {(one.chosen_on, one.n_slices) for one in chosen["a"].values()} == {
        ("train", 2)
    }


def test_an_external_test_set_has_the_default_strengths_and_says_so(caplog):
    with caplog.at_level("WARNING", logger="absl"):
        chosen = strengths_of(sources(test={"a": records(2, truth=True)}))
    expected = {name: Strength(1.0, "default", 0, False) for name in ("gaussian", "tv")}
    assert chosen == {"a": expected}
    assert "no slice to choose the filters' strengths on" in caplog.text
    assert strengths_of(sources(test={"a": records(1)}), filters=()) == {"a": {}}


@pytest.mark.slow
def test_filters_are_measured_by_data_set_with_every_slice():
    loud = records(3, truth=True, noise_hu=150.0, patient="q")
    found = sources(
        train={"loud": loud[:1]},
        test={"fixed": records(2), "loud": loud[1:]},
    )
    made = config()
    results = evaluate_filters(found, made, references_of(found, made))
    assert results["n_slices"] == 4 and list(results["datasets"]) == ["fixed", "loud"]
    fixed, other = results["datasets"].values()
    assert fixed["label"] == "gt" and other["label"] == "truth"
    assert fixed["alignment"]["aligned"] and "alignment" not in other
    assert other["strengths"]["tv"]["chosen_on"] == "train"
    assert fixed["strengths"]["tv"]["chosen_on"] == "default"
    assert "against_label" in other and "against_label" not in fixed
    # Both remove noise.
    for name in ("gaussian", "tv"):
        assert other[name]["rmse_hu"]["full"] < other["input"]["rmse_hu"]["full"]
    assert [(s["dataset"], s["patient"], s["slice"]) for s in results["slices"]] == [
        *(("fixed", "p", 0), ("fixed", "p", 1)),
        *(("loud", "q", 1), ("loud", "q", 2)),
    ]
    mean = np.mean([s["tv"]["psnr_db"]["lung"] for s in results["slices"][2:]])
    # Slices have six digits.
    assert other["tv"]["psnr_db"]["lung"] == pytest.approx(mean, rel=1e-5)


def test_scalars_are_means_within_a_data_set():
    def block(psnr):
        quality = {"psnr_db": {"lung": psnr}, "ssim": {}, "rmse_hu": {}}
        regions = {"lung": {"noise_sd_hu": 5.0, "bias_hu": None}}
        return {"output": {**quality, "regions": regions}}

    one = {"datasets": {"ct": block(20.0)}}
    assert scalars_of(one, "val") == {
        "val/psnr_db_lung": 20.0,
        "val/noise_sd_hu_lung": 5.0,
    }
    two = {"datasets": {"ct": block(20.0), "phantom": block(30.0)}}
    scalars = scalars_of(two, "val")
    assert scalars["val/ct/psnr_db_lung"] == 20.0
    assert scalars["val/phantom/psnr_db_lung"] == 30.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"filters": ("median",)}, r"evaluate\.filters: .*gaussian, tv, nlm, bm3d"),
        ({"filters": ("tv", "tv")}, r"evaluate\.filters"),
        ({"label": "ipv2"}, r"evaluate\.label: .*'truth'"),
    ],
)
def test_unknown_names_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        config(**keys)


def test_every_filter_has_a_default_among_its_strengths():
    for one in filters.FILTERS.values():
        assert one.default in one.strengths

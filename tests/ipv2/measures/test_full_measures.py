"""Tests of ipv2.measures.full_measures: what is defined, and what is said to be not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.evaluation import evaluate_slices
from ipv2.measures.full_measures import REMOVED, full_measures, removed_measures
from ipv2.measures.summary import slice_numbers, summary_block
from tests.ipv2.measures.test_evaluation import make_slice


def measured(slices, make=lambda batch: {}, **options):
    options = {"batch_size": 2, "aligned": True, "full": True} | options
    return evaluate_slices(make, slices, **options)


def flat(value, size=48, **changes):
    """A constant slice and reference, all of it body."""
    nothing = np.zeros((size, size), bool)
    regions = {"background": nothing, "lung": nothing, "body": ~nothing}
    return {
        "lq": np.full((size, size, 1), value, np.float32),
        "reference": np.full((size, size), value, np.int16),
        "regions": regions,
        "spacing_mm": np.float32([0.5, 0.5]),
    } | changes


@pytest.mark.slow
def test_all_measures_are_in_blocks_and_slices_and_the_input_removes_nothing():
    found = measured(
        [make_slice(seed, label=False) for seed in range(3)],
        lambda batch: {"output": 0.5 * jnp.asarray(batch["lq"][..., 0])},
    )
    block = summary_block(found.reference, ["a", "a", "b"])
    for name in ("mae_hu", "gmsd", "ms_ssim", "vif"):
        assert set(block["output"][name]) == {"lung", "soft_tissue", "full"}
    assert np.isfinite(block["output"]["vif"]["lung"])
    assert len(block["interval"]["output"]["mae_hu"]["full"]) == 2
    assert set(block["output"]["removed"]) == set(REMOVED)
    assert "removed" not in block["input"]
    one = slice_numbers(found, 1)
    assert one["input"]["mae_hu"]["full"] < one["output"]["mae_hu"]["full"]
    # 48 pixels are too few for five scales, rises and the audit.
    assert one["output"]["ms_ssim"] == dict.fromkeys(("lung", "soft_tissue", "full"))
    assert one["output"]["removed"] == dict.fromkeys(REMOVED)
    assert block["n"]["output"]["ms_ssim"]["full"] == 0


@pytest.mark.slow
def test_validations_and_labels_have_none_of_them():
    found = measured([make_slice()], full=False)
    assert "mae_hu" not in found.reference["input"]
    found = measured([make_slice()], aligned=False)
    assert "edge_rises" not in found.reference["input"]
    assert "mae_hu" in found.reference["input"]
    assert "mae_hu" not in found.label["input"]


@pytest.mark.parametrize("value", [-1000, 40])
def test_of_a_constant_slice_what_is_not_defined_is_none_and_not_0(value):
    found = measured([flat(value)], lambda batch: {"output": batch["lq"][..., 0]})
    one = slice_numbers(found, 0)["output"]
    assert one["mae_hu"]["full"] == one["gmsd"]["full"] == 0  # equal images
    assert one["ssim"]["full"] == pytest.approx(1)
    undefined = [*one["vif"].values(), one["vif_ldct_benchmark"]]
    undefined += [*one["slopes"].values(), *one["dense_foci"].values()]
    undefined += [one["contour_mm"], one["regions"]["lung"]["bias_hu"]]
    undefined += [one["tissues"]["lung"]["bias_hu"], *one["removed"].values()]
    assert undefined == [None] * len(undefined)
    if value == -1000:
        assert one["noise_index_hu"] is None


def test_one_slice_has_a_mean_but_no_deviation_and_no_interval():
    block = summary_block(measured([make_slice(label=False)]).reference, ["a"])
    assert block["n_slices"] == block["n_patients"] == 1
    assert np.isfinite(block["input"]["mae_hu"]["lung"])
    assert block["sd"]["input"]["mae_hu"]["lung"] is None
    assert block["interval"]["input"]["mae_hu"]["lung"] is None


def test_edges_and_the_audit_need_96_pixels():
    image = jnp.zeros((1, 95, 200))
    audit = removed_measures(image, image, image)
    assert set(audit) == set(REMOVED)
    assert all(np.isnan(value).all() for value in audit.values())
    target = {
        "reference": image,
        "regions": {"lung": image > 0},
        "spacing_mm": jnp.ones((1, 2)),
    }
    shapes = jax.eval_shape(lambda: full_measures(target, image, True))
    assert set(shapes["edge_rises"]) == {"vessels", "pleura"}

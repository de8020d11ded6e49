"""Tests of ipv2.training.pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.kernels.drawn_scans import ScanRanges
from ipv2.kernels.photon_noise import DoseParams
from ipv2.purification.purify import PurifyParams, purify
from ipv2.training.pairs import KINDS, PairParams, training_pair

DOSE = DoseParams(dose=0.005, views=48)
SPACING = jnp.full((2, 2), 6.0)


def _breaths() -> tuple[jax.Array, jax.Array]:
    y, x = np.mgrid[:96, :96] - 30.0
    lq, gt = (
        np.where(np.hypot(x - shift, y) < 16, 0.0, -1000.0) for shift in (0.0, 3.0)
    )
    two = (np.stack([image] * 2).astype(np.float32) for image in (lq, gt))
    return tuple(map(jnp.asarray, two))


def _keys(seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), 2)


def _params(kind: str) -> PairParams:
    if kind == "none":
        return PairParams(kind=kind)
    if kind == "purified":
        return PairParams(kind=kind, purification=PurifyParams(dose=DOSE))
    return PairParams(kind=kind, dose=DOSE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_gt_and_only_weighted_pairs_weigh(kind):
    lq, gt = _breaths()
    pair = training_pair(_keys(), lq, gt, SPACING, _params(kind))
    np.testing.assert_array_equal(pair.y, gt)
    assert (pair.weight is not None) == (kind == "weighted")


@pytest.mark.slow
def test_pairs_as_they_are_have_lq():
    lq, gt = _breaths()
    for kind in ("none", "weighted"):
        pair = training_pair(_keys(), lq, gt, SPACING, _params(kind))
        np.testing.assert_array_equal(pair.x, lq)


@pytest.mark.slow
def test_purified_pairs_are_those_of_purify():
    lq, gt = _breaths()
    params = _params("purified")
    pair = training_pair(_keys(), lq, gt, SPACING, params)
    pure = purify(_keys(), lq, gt, SPACING, params.purification)
    np.testing.assert_array_equal(pair.x, pure.lq_bar)


def test_simulated_pairs_do_not_see_lq():
    lq, gt = _breaths()
    first = training_pair(_keys(), lq, gt, SPACING, _params("simulated"))
    second = training_pair(_keys(), lq + 500, gt, SPACING, _params("simulated"))
    np.testing.assert_array_equal(first.x, second.x)
    assert float(jnp.std(first.x - gt)) > 10
    assert float(first.x.min()) == -1024  # as a scanner stores it


@pytest.mark.slow
def test_gated_pairs_mix_the_two_where_breaths_agree():
    lq, gt = _breaths()
    gated = training_pair(_keys(), lq, gt, SPACING, _params("gated"))
    weighted = training_pair(_keys(), lq, gt, SPACING, _params("weighted"))
    simulated = training_pair(_keys(), lq, gt, SPACING, _params("simulated"))
    agrees = np.asarray(weighted.weight) == 1
    assert 0.1 < agrees.mean() < 0.95
    expected = np.where(agrees, lq, simulated.x)
    np.testing.assert_array_equal(gated.x, expected)


@pytest.mark.slow
def test_drawn_scans_make_input_and_target():
    _, gt = _breaths()
    ranges = ScanRanges(dose=(0.02, 0.5), target_dose=1.0)
    params = PairParams(kind="simulated", dose=DOSE, ranges=ranges)
    pair = training_pair(_keys(), gt, gt, SPACING, params)
    assert float(jnp.std(pair.y - gt)) > 1
    assert float(jnp.std(pair.x - gt)) > float(jnp.std(pair.y - gt))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "other"}, "kind must be"),
        ({"kind": "purified"}, "purification"),
        ({"kind": "gated", "dose": DOSE, "ranges": ScanRanges()}, "ranges"),
        ({"kind": "gated", "dose": DoseParams(dose=1.0)}, "below the input's"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PairParams(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_physical_noise_needs_the_size_of_a_pixel(kind):
    assert _params(kind).needs_spacing == (kind != "none")

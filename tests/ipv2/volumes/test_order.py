"""Whether the masks of a pair use the order of its slices, and the streamed masks."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from ipv2.ct_io import Volume
from ipv2.purification.anatomy import AnatomyParams
from ipv2.purification.purify import PurifyParams, purify
from ipv2.training.train_step import example_rngs
from ipv2.volumes.order import with_volume
from ipv2.volumes.pairs import purified_pair
from tests.oracles.thorax import thorax

PARAMS = PurifyParams(add_noise="none")


def _volume(slices=3, **changes):
    hu = np.zeros((slices, 4, 4), np.float32)
    return Volume(**{"hu": hu, "spacing_mm": (5.0, 0.8, 0.8), "name": "scan"} | changes)


NO_STACKS = {
    "a single slice": {"slices": 1},
    "slices without positions": {"positions_known": False},
    "neighbouring slices 25 mm apart": {"spacing_mm": (25.0, 0.8, 0.8)},
    "neighbouring slices 30 mm apart": {
        "positions_mm": np.array([[0.0, 0, 0], [0, 0, 5], [0, 0, 35]])
    },
}


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("problem", NO_STACKS)
def test_slices_that_are_no_stack_stay_2d_or_are_refused(caplog, problem, side):
    pair = [_volume(), _volume()]
    pair[side] = _volume(**NO_STACKS[problem])
    with caplog.at_level("INFO", logger="absl"):
        params, words = with_volume(PARAMS, *pair, None)
    assert params == PARAMS and words == f"2-D: scan: {problem}"
    assert f"scan: {problem}: masks in 2-D" in caplog.text
    assert with_volume(PARAMS, *pair, False) == (PARAMS, "2-D")
    with pytest.raises(UserError, match=rf"{problem}; --config\.purify\.volume=True"):
        with_volume(PARAMS, *pair, True)


def test_stacks_are_3d_unless_asked_otherwise():
    deep = dataclasses.replace(PARAMS, anatomy=AnatomyParams(volume=True))
    pair = _volume(), _volume()
    assert with_volume(PARAMS, *pair, None) == (deep, "3-D")
    assert with_volume(PARAMS, *pair, True) == (deep, "3-D")
    assert with_volume(deep, *pair, False) == (PARAMS, "2-D")


def test_the_published_masks_stay_2d():
    published = PurifyParams(variant="reference")
    pair = _volume(), _volume()
    assert with_volume(published, *pair, None) == (published, "2-D, as published")


def _chests(slices=5, size=96):
    """Two breaths; the first slice has gas that no neighbour shares."""
    rng = np.random.default_rng(0)
    gt = np.stack([thorax(size).hu] * slices)
    lq = np.stack([thorax(size, shift=0.03).hu] * slices)
    gt[0, 52:60, 45:50] = -880.0
    lq = (lq + rng.normal(0, 60, lq.shape)).astype(np.float32)
    spacing = (5.0, 0.8, 0.8)
    return [Volume(hu=hu, spacing_mm=spacing) for hu in (lq, gt)]


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("version", [pytest.param("v1", marks=pytest.mark.long), "v2"])
def test_batches_of_any_size_give_the_pair_of_the_whole_array(version):
    lq, gt = _chests()
    params = PurifyParams(
        version=version, add_noise="none", anatomy=AnatomyParams(volume=True)
    )
    rngs = example_rngs(0, jnp.arange(5, dtype=jnp.uint32))
    whole = purify(rngs, jnp.asarray(lq.hu), jnp.asarray(gt.hu), 0.8, params)
    flat = dataclasses.replace(params, anatomy=AnatomyParams())
    for size in (2, 8):
        options = {"name": "a", "seed": 0, "numbers": range(5), "batch_size": size}
        pair = purified_pair(lq, gt, params, **options)
        for found, wanted in zip(pair, whole, strict=True):
            np.testing.assert_array_equal(found.hu, np.asarray(wanted))
    other = purified_pair(lq, gt, flat, **options).lung_mask.hu
    assert (other[0] > pair.lung_mask.hu[0]).sum() > 20

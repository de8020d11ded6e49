import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.purification.purify import (
    PurifyParams,
    add_noise,
    common_mask,
    purify,
    purify_v1,
    purify_v2,
    regions,
    remove_background,
    remove_noise,
)
from tests.oracles import purification_opencv as oracle
from tests.oracles.thorax import thorax

RNG = jax.random.key(0)
OFF = {"add_noise": "none", "remove_noise": "none"}
GREY = PurifyParams(variant="reference", units="grey", **OFF)
ROBUST = PurifyParams(**OFF)


def _pair(size=96, sd=60.0):
    rng = np.random.default_rng(0)
    gt = thorax(size).hu
    lq = thorax(size, shift=0.03).hu + rng.normal(0, sd, gt.shape).astype(np.float32)
    return jnp.asarray(lq), jnp.asarray(gt)


def _grey(hu, low=-1350.0, width=1500.0):
    return np.round(np.clip((np.asarray(hu) - low) / width, 0, 1) * 255).astype(
        np.uint8
    )


def _grey_pairs():
    """Returns 8-bit pairs: a chest, one with a mark on the seed, noise, constants."""
    rng = np.random.default_rng(1)
    lq, gt = _pair()
    pairs = [(_grey(lq), _grey(gt)), (_grey(lq), _grey(gt))]
    pairs[1][0][:9, :9] = 255
    shape = pairs[0][0].shape
    pairs.append(tuple(rng.integers(0, 256, (2, *shape)).astype(np.uint8)))
    pairs.append((np.zeros(shape, np.uint8), np.full(shape, 9, np.uint8)))
    return [np.stack(images) for images in zip(*pairs, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("t", [0.0, 0.1, 0.3])
def test_reference_v1_is_bit_exact_with_opencv(t):
    lq, gt = _grey_pairs()
    found = purify_v1(jnp.asarray(lq), jnp.asarray(gt), t=t, params=GREY)
    assert found.lq_bar.dtype == found.gt_bar.dtype == jnp.uint8
    for i in range(len(lq)):
        lq_bar, gt_bar, mask = oracle.purify_v1(lq[i], gt[i], t)
        np.testing.assert_array_equal(np.rint(255 * found.lung_mask[i]), mask)
        np.testing.assert_array_equal(found.lq_bar[i], lq_bar)
        np.testing.assert_array_equal(found.gt_bar[i], gt_bar)


@pytest.mark.slow
def test_reference_v2_is_bit_exact_with_opencv_and_holds_254():
    lq, gt = _grey_pairs()
    found = purify_v2(RNG, jnp.asarray(lq), jnp.asarray(gt), 1.0, GREY)
    for i in range(len(lq)):
        lq_bar, gt_bar, mask = oracle.purify_v2(lq[i], gt[i])
        np.testing.assert_array_equal(np.rint(255 * found.lung_mask[i]), mask)
        np.testing.assert_array_equal(found.lq_bar[i], lq_bar)
        np.testing.assert_array_equal(found.gt_bar[i], gt_bar)
    assert set(np.unique(np.rint(255 * found.lung_mask[0]))) == {0, 254, 255}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (40, 7)])
def test_reference_is_bit_exact_at_odd_sizes(shape):
    rng = np.random.default_rng(2)
    lq, gt = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    found = purify_v2(RNG, jnp.asarray(lq), jnp.asarray(gt), 1.0, GREY)
    for ours, theirs in zip(found[:2], oracle.purify_v2(lq, gt)[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_reference_reads_hu_through_its_window():
    lq, gt = _pair()
    params = dataclasses.replace(GREY, units="hu")
    mask = remove_background(lq, gt, params)
    expected = oracle.remove_background(oracle.common_mask(_grey(lq), _grey(gt)))
    np.testing.assert_array_equal(np.rint(255 * mask), expected)


@pytest.mark.slow
@pytest.mark.parametrize("params", [ROBUST, dataclasses.replace(GREY, units="hu")])
def test_v2_with_its_modules_off_is_v1_with_t_0(params):
    lq, gt = _pair()
    off = dataclasses.replace(params, remove_background=False)
    v2, v1 = purify_v2(RNG, lq, gt, 1.0, off), purify_v1(lq, gt, t=0.0, params=params)
    for ours, theirs in zip(v2, v1, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # one product by 1 - T


@pytest.mark.slow
def test_robust_blend_exchanges_exactly_the_lungs():
    lq, gt = _pair()
    found = purify_v2(RNG, lq, gt, 1.0, ROBUST)
    lung = np.asarray(found.lung_mask) == 1
    assert 0.1 < lung.mean() < 0.3
    np.testing.assert_array_equal(found.lq_bar, np.where(lung, gt, lq))
    np.testing.assert_array_equal(found.gt_bar, np.where(lung, lq, gt))


@pytest.mark.slow
def test_background_leaves_the_mask_and_comes_back_when_switched_off():
    lq, gt = _pair()
    lung, both = remove_background(lq, gt, ROBUST), common_mask(lq, gt, ROBUST)
    assert lung[0, 0] == 0 and both[0, 0] == 1
    assert bool(jnp.all(lung <= both))


@pytest.mark.slow
def test_align_contour_makes_the_outer_contour_that_of_the_target():
    lq, gt = _pair(sd=0.0)
    plain = purify_v2(RNG, lq, gt, 1.0, ROBUST)
    aligned = purify_v2(
        RNG, lq, gt, 1.0, dataclasses.replace(ROBUST, align_contour=True)
    )
    outline = np.asarray((lq < -500) != (gt < -500)) & (
        np.asarray(plain.lung_mask) == 0
    )
    # Table and vessels remain: none of their pixels is outside air in only one breath.
    wrong = np.abs(np.asarray(plain.lq_bar - gt))[outline] > 400
    left = np.abs(np.asarray(aligned.lq_bar - gt))[outline] > 400
    assert left.sum() < 0.5 * wrong.sum()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tv", "gaussian", "median"])
def test_remove_noise_quiets_the_label_in_the_lung_alone(method):
    lq, gt = _pair()
    params = PurifyParams(add_noise="none", remove_noise=method)
    found = purify_v2(RNG, lq, gt, 1.0, params)
    lung = np.asarray(found.lung_mask) == 1
    np.testing.assert_array_equal(np.asarray(found.gt_bar)[~lung], gt[~lung])
    inside = np.asarray(regions(gt).lung) & np.asarray(regions(lq).lung)
    assert inside.sum() > 100
    # The median deviation, because the region holds small vessels at this size.
    label, noisy = np.asarray(found.gt_bar)[inside], np.asarray(lq)[inside]
    assert np.median(abs(label + 860)) < 0.6 * np.median(abs(noisy + 860))


@pytest.mark.slow
def test_add_noise_of_each_kind():
    _, gt = _pair()
    none = add_noise(RNG, gt, 4.0, ROBUST)
    np.testing.assert_array_equal(none, gt)
    physical = add_noise(RNG, gt, 4.0, PurifyParams())
    again = add_noise(RNG, gt, 4.0, PurifyParams())
    np.testing.assert_array_equal(physical, again)
    assert 5 < float(jnp.std(physical - gt)) < 300
    reference = add_noise(RNG, gt, 4.0, PurifyParams(add_noise="reference"))
    # 8 bits through the window -1350 ... 150 HU.
    assert float(reference.min()) == -1350 and float(reference.max()) == 150


@pytest.mark.slow
def test_masks_are_constants_and_blends_have_the_gradient_of_their_weight():
    lq, gt = _pair(64)

    def total(lq, gt):
        return purify_v2(RNG, lq, gt, 1.0, ROBUST).lq_bar.sum()

    for_lq, for_gt = jax.grad(total, argnums=(0, 1))(lq, gt)
    mask = remove_background(lq, gt, ROBUST)
    np.testing.assert_array_equal(for_gt, mask)
    np.testing.assert_array_equal(for_lq, 1 - mask)


@pytest.mark.slow
@pytest.mark.optimized
def test_a_slice_does_not_depend_on_its_batch_nor_on_jit():
    lq, gt = _pair()
    batch = purify_v2(RNG, jnp.stack([gt, lq]), jnp.stack([lq, gt]), 1.0, ROBUST)
    alone = purify_v2(RNG, lq, gt, 1.0, ROBUST)
    jitted = jax.jit(purify_v2, static_argnums=4)(RNG, lq, gt, 1.0, ROBUST)
    for whole, one, compiled in zip(batch, alone, jitted, strict=True):
        np.testing.assert_array_equal(whole[1], one)
        np.testing.assert_array_equal(compiled, one)


@pytest.mark.slow
def test_same_shapes_and_equal_params_compile_nothing_new():
    lq, gt = _pair()
    purify_v2(RNG, lq, gt, 1.0, PurifyParams(**OFF))
    brighter = lq + 1
    with jax.no_tracing():
        purify_v2(RNG, brighter, gt, 1.0, PurifyParams(**OFF))


@pytest.mark.slow
def test_purify_dispatches_on_the_version():
    lq, gt = _pair(64)
    v1 = purify(RNG, lq, gt, 1.0, dataclasses.replace(ROBUST, version="v1", t=0.3))
    np.testing.assert_array_equal(
        v1.lq_bar, purify_v1(lq, gt, t=0.3, params=ROBUST).lq_bar
    )


@pytest.mark.slow
def test_regions_are_disjoint_and_hold_their_tissue():
    truth = thorax(128)
    found = regions(jnp.asarray(truth.hu))
    background, lung, body = (np.asarray(mask) for mask in found)
    assert not (background & lung).any() and not (lung & body).any()
    assert np.unique(truth.hu[background]) == [-1000]
    assert np.unique(truth.hu[lung]) == [-860]
    assert set(np.unique(truth.hu[body])) <= {-100, 40, 700}
    assert min(background.sum(), lung.sum(), body.sum()) > 500


def test_remove_noise_in_grey_is_that_in_hu():
    lq, _ = _pair(64)
    window = (-600.0, 1500.0)
    grey = (lq + 1350) * (255 / 1500)
    in_grey = remove_noise(grey, PurifyParams(units="grey", window=window))
    in_hu = remove_noise(lq, PurifyParams())
    # 0.01 grey levels are 0.06 HU: float32 at 1000 HU, 30 iterations.
    np.testing.assert_allclose(in_grey, (in_hu + 1350) * (255 / 1500), atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "exact"}, "variant must be one of 'robust', 'reference', got"),
        ({"version": "v3"}, "version must be one of 'v1', 'v2'"),
        ({"add_noise": "gauss"}, "add_noise must be one of 'none', 'reference'"),
        ({"remove_noise": "bm3d"}, "remove_noise must be one of 'none', 'tv'"),
        ({"units": "raw"}, "units must be one of 'hu', 'grey'"),
        ({"median_size": 4}, "median_size must be one of 3, 5"),
        ({"window": (40, 0)}, "width above 0"),
        ({"t": 1.5}, "t must be from 0 to 1"),
        ({"tv_weight_hu": 0.0}, "tv_weight_hu must be above 0"),
        ({"tv_iterations": 0}, "tv_iterations must be at least 1"),
        ({"variant": "reference", "align_contour": True}, "needs variant='robust'"),
    ],
)
def test_params_refuse_bad_values(options, message):
    with pytest.raises(ValueError, match=message):
        PurifyParams(**options)


def test_params_are_hashable_and_equal_by_value():
    assert hash(PurifyParams(window=[40, 400])) == hash(PurifyParams(window=(40, 400)))


def test_pairs_that_do_not_match_are_refused():
    a, b = jnp.zeros((8, 8)), jnp.zeros((8, 9))
    with pytest.raises(ValueError, match="same shape and dtype"):
        purify_v1(a, b, t=0.1)
    with pytest.raises(ValueError, match="must be float32 with units='hu'"):
        purify_v1(a.astype(jnp.uint8), a.astype(jnp.uint8))
    with pytest.raises(ValueError, match="t must be from 0 to 1"):
        purify_v1(a, a, t=2.0)

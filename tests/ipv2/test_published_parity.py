"""`variant=reference` against what the published scripts made of seven pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from configs import ipv2_redcnn
from ipv2.kernels import bit_mask
from ipv2.purification.purify import (
    PurifyParams,
    common_mask,
    dark_mask,
    purify,
    purify_v1,
    purify_v2,
    remove_background,
)
from ipv2.tasks.purify import purify_folder
from tests.oracles import purification_opencv as oracle
from tests.oracles.published import NAMES, published

RNG = jax.random.key(0)
GREY = PurifyParams(
    variant="reference", units="grey", add_noise="none", remove_noise="none"
)
PAIRS = {name: published(name) for name in NAMES}


def _stack(kind):
    return jnp.asarray(np.stack([pair[kind] for pair in PAIRS.values()]))


def _equal(found, kind):
    np.testing.assert_array_equal(found, _stack(kind))


@pytest.mark.slow
@pytest.mark.parametrize("side", ["lq", "gt"])
def test_dark_mask_is_the_published_one(side):
    image = _stack(side)
    dark = bit_mask.unpack(dark_mask(image, image.shape[-2]), image.shape[-2])
    _equal(np.where(dark, 255, 0), f"D_{side}")


@pytest.mark.slow
def test_common_mask_is_the_published_one():
    _equal(np.rint(255 * common_mask(_stack("lq"), _stack("gt"), GREY)), "CM")


def test_lung_mask_is_the_published_one():
    mask = np.rint(255 * remove_background(_stack("lq"), _stack("gt"), GREY))
    _equal(mask, "CM_lung")
    # Both of the values that the fill has to take for one are there.
    assert set(np.unique(mask)) == {0, 254, 255}


def test_v1_is_the_published_one():
    found = purify_v1(_stack("lq"), _stack("gt"), t=0.1, params=GREY)
    _equal(found.lq_bar, "v1_lq_bar")
    _equal(found.gt_bar, "v1_gt_bar")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_levels_given_as_float32_come_back_as_the_same_levels(version):
    params = dataclasses.replace(GREY, version=version)
    lq, gt = (_stack(side).astype(jnp.float32) for side in ("lq", "gt"))
    found = purify(RNG, lq, gt, 1.0, params)
    assert found.lq_bar.dtype == found.gt_bar.dtype == jnp.float32
    _equal(found.lq_bar, f"{version}_lq_bar")
    _equal(found.gt_bar, f"{version}_gt_bar")


def test_v2_is_the_published_one():
    found = purify_v2(RNG, _stack("lq"), _stack("gt"), 1.0, GREY)
    _equal(found.lq_bar, "v2_lq_bar")
    _equal(found.gt_bar, "v2_gt_bar")


def test_v2_with_the_published_noise_is_the_published_one(monkeypatch):
    noise = _stack("noise_seed0")
    monkeypatch.setattr("ipv2.purification.purify.add_noise", lambda *_: noise)
    found = purify_v2(RNG, _stack("lq"), _stack("gt"), 1.0, GREY)
    _equal(found.lq_bar, "v2n_lq_bar")


@pytest.mark.parametrize("name", NAMES)
def test_opencv_oracle_is_the_published_script(name):
    pair = PAIRS[name]
    lq, gt = pair["lq"], pair["gt"]
    lq_bar, gt_bar, mask = oracle.purify_v1(lq, gt, 0.1)
    np.testing.assert_array_equal(mask, pair["CM"])
    np.testing.assert_array_equal(lq_bar, pair["v1_lq_bar"])
    np.testing.assert_array_equal(gt_bar, pair["v1_gt_bar"])
    lq_bar, gt_bar, mask = oracle.purify_v2(lq, gt)
    np.testing.assert_array_equal(mask, pair["CM_lung"])
    np.testing.assert_array_equal(lq_bar, pair["v2_lq_bar"])
    np.testing.assert_array_equal(gt_bar, pair["v2_gt_bar"])
    noisy = oracle.purify_v2(lq, gt, noisy_gt=pair["noise_seed0"])[0]
    np.testing.assert_array_equal(noisy, pair["v2n_lq_bar"])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_task_purify_writes_the_published_files(tmp_path, version):
    for name, pair in PAIRS.items():
        for side in ("lq", "gt"):
            path = tmp_path / "in" / side / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pair[side]).save(path)
    config = ipv2_redcnn.get_config("smoke")
    config.data.root = str(tmp_path / "in")
    config.purify.output = str(tmp_path / "out")
    config.purify.variant, config.purify.version = "reference", version
    config.purify.add_noise = config.purify.remove_noise = "none"
    purify_folder(config, tmp_path / "work")
    for name, pair in PAIRS.items():
        for side in ("lq_bar", "gt_bar"):
            with PIL.Image.open(tmp_path / "out" / side / f"{name}.png") as image:
                assert image.mode == "L"
                written = np.asarray(image)
            np.testing.assert_array_equal(written, pair[f"{version}_{side}"])

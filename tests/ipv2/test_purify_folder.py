import json

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk

from common.errors import UserError
from configs import ipv2_redcnn
from ipv2 import settings
from ipv2.ct_io import Volume, read_volume, write_volume
from ipv2.purification import purify_v2
from ipv2.purify_folder import purify_folder
from ipv2.train_step import example_rngs
from tests.oracles import purification_opencv as oracle
from tests.oracles.thorax import thorax

SIZE = 64


def _pair(slices, seed=0):
    """(lq, gt) HU of two breaths, the first noisy, in whole HU."""
    rng = np.random.default_rng(seed)
    gt = np.stack([thorax(SIZE).hu] * slices)
    lq = np.stack([thorax(SIZE, shift=0.03).hu] * slices)
    lq = np.rint(lq + rng.normal(0, 60, lq.shape))
    return lq.astype(np.float32), np.rint(gt).astype(np.float32)


def _write(root, name, *, slices=3, seed=0):
    for side, hu in zip(("lq", "gt"), _pair(slices, seed), strict=True):
        volume = Volume(hu=hu, spacing_mm=(5.0, 2.0, 2.0), integer=True)
        write_volume(volume, root / side / name)


def _config(root, output, **changes):
    config = ipv2_redcnn.get_config("smoke")
    config.data.root, config.purify.output = str(root), str(output)
    config.evaluate.batch_size = 2
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def purified(tmp_path_factory):
    """Three pairs of three formats and one bad file, purified once."""
    folder = tmp_path_factory.mktemp("purify")
    _write(folder / "in", "p1/scan.nii.gz")
    _write(folder / "in", "p2/scan.mha", seed=1)
    _write(folder / "in", "p3/series", seed=2)
    _write(folder / "in", "p4/bad.nrrd")
    (folder / "in/lq/p4/bad.nrrd").write_bytes(b"not an image")
    purify_folder(_config(folder / "in", folder / "out"), folder / "work")
    return folder


@pytest.mark.slow
def test_results_have_the_input_s_names_and_formats(purified):
    out = purified / "out"
    files = {
        p.relative_to(out).as_posix()
        for p in out.rglob("*")
        if p.is_file() and p.suffix != ".dcm"
    }
    assert files == {"config.json"} | {
        f"{side}/{name}"
        for side in ("lq_bar", "gt_bar", "lung_mask")
        for name in ("p1/scan.nii.gz", "p2/scan.mha")
    }
    series = list((out / "lq_bar" / "p3" / "series").iterdir())
    assert len(series) == 3 and all(p.suffix == ".dcm" for p in series)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p1/scan.nii.gz", "p2/scan.mha", "p3/series"])
def test_results_are_those_of_purify_v2(purified, name):
    """Slice by slice, though the batches were of two and the last was filled up."""
    root, out = purified / "in", purified / "out"
    lq, gt = (read_volume(root / side / name) for side in ("lq", "gt"))
    params = settings.purify_params(_config(root, out))
    mask = read_volume(out / "lung_mask" / name).hu
    lq_bar = read_volume(out / "lq_bar" / name)
    gt_bar = read_volume(out / "gt_bar" / name).hu
    assert lq_bar.spacing_mm == lq.spacing_mm and lq_bar.origin_mm == lq.origin_mm
    assert set(np.unique(mask)) == {0.0, 1.0}
    # Outside the lung the input is lq and the label gt, to a whole HU.
    outside = mask == 0
    np.testing.assert_allclose(lq_bar.hu[outside], lq.hu[outside], atol=0.5)
    np.testing.assert_allclose(gt_bar[outside], gt.hu[outside], atol=0.5)
    alone = purify_v2(
        example_rngs(0, jnp.zeros(1, jnp.uint32)),  # its noise does not matter here
        jnp.asarray(lq.hu[2:]),
        jnp.asarray(gt.hu[2:]),
        jnp.asarray(lq.spacing_mm[1:]),
        params,
    )
    np.testing.assert_array_equal(mask[2], np.asarray(alone.lung_mask[0]))
    np.testing.assert_allclose(gt_bar[2], np.asarray(alone.gt_bar[0]), atol=0.51)
    # In the lung the input is noisier than gt, which is smooth there.
    lung = mask[2] > 0
    assert np.std((lq_bar.hu - gt.hu)[2][lung]) > 5


@pytest.mark.slow
def test_the_bad_file_is_listed_and_the_rest_is_there(purified, capsys, caplog):
    config = _config(purified / "in", purified / "out")
    before = (purified / "out/lq_bar/p1/scan.nii.gz").stat().st_mtime_ns
    with caplog.at_level("INFO", logger="absl"):
        purify_folder(config, purified / "work")
    assert "3 of 4 pairs are there already" in caplog.text
    assert "bad.nrrd" in caplog.text and "1 skipped" in caplog.text
    assert "0 pairs purified, 3 there before, 1 skipped" in capsys.readouterr().out
    assert (purified / "out/lq_bar/p1/scan.nii.gz").stat().st_mtime_ns == before


@pytest.mark.slow
def test_other_settings_are_not_mixed_into_the_same_folder(purified):
    config = _config(purified / "in", purified / "out", **{"purify.version": "v1"})
    with pytest.raises(UserError, match=r"config\.purify\.version: the run has 'v2'"):
        purify_folder(config, purified / "work")


@pytest.mark.slow
def test_noise_is_the_seed_s(purified, tmp_path):
    purify_folder(_config(purified / "in", tmp_path / "again"), tmp_path)
    purify_folder(_config(purified / "in", tmp_path / "other", seed=1), tmp_path)
    first, again, other = (
        read_volume(folder / "lq_bar/p1/scan.nii.gz").hu
        for folder in (purified / "out", tmp_path / "again", tmp_path / "other")
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def _grey(hu):
    return np.round(np.clip((hu + 1350) / 1500, 0, 1) * 255).astype(np.uint8)


@pytest.mark.slow
def test_grey_png_by_the_reference_variant_are_bit_exact(tmp_path):
    greys = [_grey(hu[0]) for hu in _pair(1)]
    for side, grey in zip(("lq", "gt"), greys, strict=True):
        (tmp_path / "in" / side).mkdir(parents=True)
        PIL.Image.fromarray(grey).save(tmp_path / "in" / side / "p1_0001.png")
    changes = {
        "purify.variant": "reference",
        "purify.add_noise": "none",
        "purify.remove_noise": "none",
    }
    config = _config(tmp_path / "in", tmp_path / "out", **changes)
    purify_folder(config, tmp_path)
    lq_bar, gt_bar, _ = oracle.purify_v2(*greys)
    for side, wanted in (("lq_bar", lq_bar), ("gt_bar", gt_bar)):
        written = np.asarray(PIL.Image.open(tmp_path / "out" / side / "p1_0001.png"))
        assert written.dtype == np.uint8
        np.testing.assert_array_equal(written, wanted)


def test_grey_png_without_a_window_need_the_reference_variant(tmp_path, caplog):
    for side in ("lq", "gt"):
        (tmp_path / side).mkdir()
        PIL.Image.fromarray(_grey(_pair(1)[0][0])).save(tmp_path / side / "a.png")
    with pytest.raises(UserError, match="no pair could be purified"):
        purify_folder(_config(tmp_path, tmp_path / "out"), tmp_path)
    assert "--config.data.window" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.root": ""}, r"--config\.data\.root=DIR"),
        ({"purify.output": ""}, r"--config\.purify\.output=DIR"),
        ({"purify.version": "none"}, "'v1' or 'v2'"),
    ],
)
def test_what_is_missing_is_named(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        purify_folder(_config(tmp_path, tmp_path / "out", **changes), tmp_path)


@pytest.mark.slow
def test_breaths_of_different_length_are_matched_by_position(tmp_path):
    lq, gt = _pair(4)
    spacing = (5.0, 2.0, 2.0)
    write_volume(
        Volume(hu=lq, spacing_mm=spacing, integer=True), tmp_path / "lq/a.nii.gz"
    )
    shorter = Volume(
        hu=gt[:2], spacing_mm=spacing, integer=True, origin_mm=(0.0, 0.0, 5.0)
    )
    write_volume(shorter, tmp_path / "gt/a.nii.gz")
    purify_folder(_config(tmp_path, tmp_path / "out"), tmp_path)
    image = sitk.ReadImage(tmp_path / "out/lq_bar/a.nii.gz")
    assert image.GetSize()[2] == 2 and image.GetOrigin()[2] == 5.0
    assert json.loads((tmp_path / "out/config.json").read_text())["seed"] == 0

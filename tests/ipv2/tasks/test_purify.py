"""Task purify: names, formats, results, and the user's files."""

import dataclasses
import errno
import json
import os

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk

from common.errors import Incomplete, UserError
from configs import ipv2_redcnn
from ipv2.ct_io import ReadOptions, Volume, read_volume, write_volume
from ipv2.purification.purify import purify_v2
from ipv2.tasks import settings
from ipv2.tasks.check import check_config
from ipv2.tasks.purify import purify_folder
from ipv2.training.train_step import example_rngs
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
    assert files == {
        f"records/{n}.json" for n in ("p1/scan", "p2/scan", "p3/series")
    } | {
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
    mask = read_volume(out / "lung_mask" / name, ReadOptions(trust_hu=True)).hu
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
    said = r"config\.purify\.version: 'v2' there, 'v1' asked for"
    with pytest.raises(UserError, match=said):
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


def _moved(folder):
    """lq/ and gt/ of a folder in a folder of their own."""
    for side in ("lq", "gt"):
        (folder / "in").mkdir(exist_ok=True)
        (folder / side).rename(folder / "in" / side)
    return folder / "in"


def _tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Without noise and masks that take long to compile.
PLAIN = {
    "purify.version": "v1",
    "purify.variant": "reference",
}


@pytest.fixture
def quick(tmp_path):
    """Purifies by version 1, which is quick, below a folder of its own."""

    def run(source="in", output="out", **changes):
        config = _config(tmp_path / source, tmp_path / output, **PLAIN | changes)
        purify_folder(config, tmp_path / "work")

    return run


@pytest.mark.slow
def test_files_that_are_there_are_replaced_with_overwrite_only(quick, tmp_path):
    """A file, and slices of another series in the folder of one."""
    for name, source in (("p1.nii.gz", "in"), ("p2", "in"), ("p2", "other")):
        _write(tmp_path / source, name)
    other = tmp_path / "other/lq/p2"
    (tmp_path / "out/gt_bar").mkdir(parents=True)
    (tmp_path / "out/gt_bar/p1.nii.gz").write_bytes(b"mine")
    for number, path in enumerate(sorted(other.iterdir())):
        (tmp_path / "out/lq_bar/p2").mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / f"out/lq_bar/p2/own{number}.dcm")
    (tmp_path / "out/config.json").write_text("of another program")
    before = _tree(tmp_path / "out")
    with pytest.raises(UserError) as refused:
        quick()
    message = str(refused.value)
    assert "gt_bar/p1.nii.gz: is there, without a p1.json" in message
    assert "lq_bar/p2/own0.dcm: is there, without a p2.json" in message
    assert "--config.purify.overwrite=True" in message
    with pytest.raises(UserError, match=r"own0\.dcm: is in the way"):
        quick(**{"purify.overwrite": True})
    assert _tree(tmp_path / "out") == before
    for path in (tmp_path / "out/lq_bar/p2").iterdir():
        path.unlink()
    quick(**{"purify.overwrite": True})
    after = _tree(tmp_path / "out")
    assert after["gt_bar/p1.nii.gz"] != b"mine"
    assert after["config.json"] == b"of another program"


def test_three_text_files_are_no_results(quick, tmp_path):
    _write(tmp_path / "in", "p1.nii.gz")
    for side in ("lq_bar", "gt_bar", "lung_mask"):
        (tmp_path / "out" / side).mkdir(parents=True)
        (tmp_path / "out" / side / "p1.nii.gz").write_text("notes")
    with pytest.raises(UserError, match=r"p1\.nii\.gz: is there, without"):
        quick()


@pytest.mark.parametrize(
    "output", ["in", "in/lq", "in/gt", "in/lq/out", ".", "link", "link/below"]
)
def test_the_output_keeps_away_from_the_input(quick, tmp_path, output):
    _write(tmp_path / "in", "p1.mha")
    (tmp_path / "link").symlink_to(tmp_path / "in/gt")
    before = _tree(tmp_path / "in")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"config\.purify\.output: .* input folder"):
            quick("in", output, **{"purify.overwrite": overwrite})
    assert _tree(tmp_path / "in") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "link"]


def _grey_pairs(folder, *names):
    for side, hu in zip(("lq", "gt"), _pair(1), strict=True):
        (folder / side).mkdir(parents=True)
        for name in names:
            PIL.Image.fromarray(_grey(hu[0])).save(folder / side / name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"purify.window": (-500.0, 1500.0)}, r"purify\.window: \[-600\.0, 1500\.0\]"),
        ({"purify.t": 0.2}, r"config\.purify\.t: 0\.1 there, 0\.2 asked"),
        ({"data.match": "index"}, r"config\.data\.match: 'position' there, 'index'"),
        ({"data.window": (-600.0, 1500.0)}, r"config\.data\.window: None there, \[-6"),
        ({"data.pixel_mm": 0.8}, r"config\.data\.pixel_mm: 0\.0 there, 0\.8 asked"),
        ({"seed": 3}, r"config\.seed: 0 there, 3 asked"),
    ],
)
def test_other_settings_make_other_results(quick, tmp_path, changes, said):
    _grey_pairs(tmp_path / "in", "p1_1.png")
    quick()
    quick()
    before = _tree(tmp_path / "out")
    with pytest.raises(UserError, match=said):
        quick(**changes)
    assert _tree(tmp_path / "out") == before


@pytest.mark.slow
def test_another_root_and_other_sources_make_other_results(quick, tmp_path, capsys):
    _write(tmp_path / "in", "p1.mha")
    _write(tmp_path / "other", "p1.mha", seed=1)
    quick()
    with pytest.raises(UserError, match=r"lq\.sha256: '\w+' there"):
        quick("other")
    # Moved, with its names and times, it is the same.
    (tmp_path / "in").rename(tmp_path / "moved")
    quick("moved")
    assert "0 pairs purified, 1 there before" in capsys.readouterr().out
    _write(tmp_path / "new", "p1.mha")
    (tmp_path / "new/gt/p1.mha").replace(tmp_path / "moved/gt/p1.mha")
    with pytest.raises(UserError, match=r"gt\.sha256: '\w+' there"):
        quick("moved")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["lq_bar", "gt_bar", "lung_mask", "records"])
def test_the_results_of_a_pair_appear_together(
    quick, tmp_path, monkeypatch, caplog, side
):
    for name in ("p1.mhd", "p2.nii"):
        _write(tmp_path / "in", name)
    replace = os.replace

    def full(source, target):
        if (
            side in str(target)
            and "/p1" in str(target)
            and ".making" not in str(target)
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        quick()
    assert "p1.mhd: No space left on device" in caplog.text
    files = set(_tree(tmp_path / "out"))
    results = ("lq_bar/p2.nii", "gt_bar/p2.nii", "lung_mask/p2.nii", "records/p2.json")
    assert files == set(results)
    quick()
    assert len(_tree(tmp_path / "out")) == len(results) + 7  # with three .raw


def test_one_bad_pair_never_stops_the_rest(quick, tmp_path, capsys, caplog):
    """Values of 0 to 1, which once ended the batch; and a partner that is missing."""
    for name in ("p1.mha", "p2.mha", "p3.mha"):
        _write(tmp_path / "in", name)
    for side in ("lq", "gt"):
        path = tmp_path / "in" / side / "p2.mha"
        volume = read_volume(path)
        unit = dataclasses.replace(volume, hu=volume.hu * 0 + 0.5, integer=False)
        write_volume(unit, path, overwrite=True)
    (tmp_path / "in/lq/p3.mha").unlink()
    (tmp_path / "in/lq/notes.txt").write_text("x")
    quick()
    assert "1 pairs purified, 0 there before, 2 skipped" in capsys.readouterr().out
    for said in ("p2.mha", "gt without lq", "notes.txt"):
        assert said in caplog.text
    with pytest.raises(Incomplete, match="2 skipped"):
        quick(strict=True)


@pytest.mark.slow
def test_physical_noise_needs_the_size_of_a_pixel(quick, tmp_path, caplog):
    _grey_pairs(tmp_path / "in", "p1_1.png")
    _write(tmp_path / "in", "p2.mha")
    changes = {
        "data.window": (-600.0, 1500.0),
        "purify.version": "v2",
        "purify.remove_noise": "none",
    }
    quick(**changes)
    assert "no pixel size" in caplog.text and "--config.data.pixel_mm" in caplog.text
    files = set(_tree(tmp_path / "out"))
    assert "lq_bar/p2.mha" in files and "lq_bar/p1_1.png" not in files
    # And what states it is not made again for it.
    kept = (tmp_path / "out/lq_bar/p2.mha").stat().st_mtime_ns
    quick(**changes | {"data.pixel_mm": 2.0})
    assert (tmp_path / "out/lq_bar/p2.mha").stat().st_mtime_ns == kept
    assert "lq_bar/p1_1.png" in _tree(tmp_path / "out")


def test_version_1_adds_no_noise_and_needs_no_pixel_size(quick, tmp_path):
    """Though `add_noise` is physical by default."""
    _grey_pairs(tmp_path / "in", "p1_1.png")
    quick()
    assert (
        np.asarray(PIL.Image.open(tmp_path / "out/lq_bar/p1_1.png")).dtype == np.uint8
    )


def test_descriptions_name_version_and_variant(quick, tmp_path):
    _write(tmp_path / "in", "p1")
    quick()
    for side in ("lq_bar", "gt_bar", "lung_mask"):
        data = pydicom.dcmread(next((tmp_path / "out" / side / "p1").iterdir()))
        assert data.SeriesDescription == f"IPv2 {side} reference"
        assert "image purification, v1, reference, " in data.DerivationDescription


def _grey(hu):
    return np.round(np.clip((hu + 1350) / 1500, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("sixteen", ["lq", "gt"])
def test_grey_png_of_two_depths_are_no_pair(tmp_path, caplog, sixteen):
    grey = _grey(_pair(1)[0][0])
    for side in ("lq", "gt"):
        (tmp_path / "in" / side).mkdir(parents=True)
        one = grey.astype(np.uint16) * 257 if side == sixteen else grey
        PIL.Image.fromarray(one).save(tmp_path / "in" / side / "p1_0001.png")
    changes = {
        "purify.variant": "reference",
        "purify.add_noise": "none",
        "purify.remove_noise": "none",
    }
    with pytest.raises(UserError, match="no pair could be purified"):
        purify_folder(_config(tmp_path / "in", tmp_path / "out", **changes), tmp_path)
    said = ("16", "8") if sixteen == "lq" else ("8", "16")
    assert "{}-bit grey levels in lq, {}-bit ones in gt".format(*said) in caplog.text


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
    root = _moved(tmp_path)
    with pytest.raises(UserError, match="no pair could be purified"):
        purify_folder(_config(root, tmp_path / "out"), tmp_path)
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


def test_png_slices_are_no_volume(tmp_path, caplog):
    _grey_pairs(tmp_path / "in", "p1_1.png", "p1_2.png")
    changes = {
        "data.window": (-600.0, 1500.0),
        "data.pixel_mm": 2.0,
        "purify.volume": True,
    }
    with pytest.raises(UserError, match="no pair could be purified"):
        purify_folder(_config(tmp_path / "in", tmp_path / "out", **changes), tmp_path)
    assert "p1_1: a single slice; --config.purify.volume=True needs" in caplog.text


def test_published_masks_have_no_third_dimension(quick, tmp_path):
    _write(tmp_path / "in", "p1.mha")
    with pytest.raises(UserError, match=r"purify\.volume: got True, accepted: False"):
        quick(**{"purify.volume": True})
    quick()
    record = json.loads((tmp_path / "out/records/p1.json").read_text())
    assert record["made"]["masks"] == "2-D, as published"
    with pytest.raises(UserError, match=r"purify\.volume: None there, False asked"):
        quick(**{"purify.volume": False})


def test_other_tasks_refuse_volumes():
    config = ipv2_redcnn.get_config("smoke")
    config.purify.volume = True
    with pytest.raises(UserError, match="which only --task purify reads"):
        check_config(config)
    config.purify.volume = False
    check_config(config)


@pytest.mark.slow
def test_a_series_gets_3d_masks_unless_asked_otherwise(tmp_path):
    """The first slice has gas in the abdomen that its neighbour does not share."""
    lq, gt = _pair(3)
    gt[0, 17:21, 28:36] = -880.0
    for side, hu in (("lq", lq), ("gt", gt)):
        volume = Volume(hu=hu, spacing_mm=(5.0, 2.0, 2.0), integer=True)
        write_volume(volume, tmp_path / "in" / side / "p1.mha")
    masks = {}
    for name, asked in (("default", None), ("deep", True), ("flat", False)):
        config = _config(tmp_path / "in", tmp_path / name)
        config.purify.volume = asked
        purify_folder(config, tmp_path / "work")
        found = tmp_path / name / "lung_mask/p1.mha"
        masks[name] = read_volume(found, ReadOptions(trust_hu=True)).hu
        record = json.loads((tmp_path / name / "records/p1.json").read_text())
        assert record["made"]["masks"] == ("2-D" if name == "flat" else "3-D")
        assert record["asked"]["config.purify.volume"] is asked
    np.testing.assert_array_equal(masks["default"], masks["deep"])
    assert masks["flat"][0, 19, 32] == 1 and masks["deep"][0, 19, 32] == 0


@pytest.mark.slow
def test_breaths_of_different_length_are_matched_by_position(tmp_path, caplog):
    lq, gt = _pair(4)
    spacing = (5.0, 2.0, 2.0)
    write_volume(
        Volume(hu=lq, spacing_mm=spacing, integer=True), tmp_path / "lq/a.nii.gz"
    )
    shorter = Volume(
        hu=gt[:2], spacing_mm=spacing, integer=True, origin_mm=(0.0, 0.0, 5.0)
    )
    write_volume(shorter, tmp_path / "gt/a.nii.gz")
    purify_folder(_config(_moved(tmp_path), tmp_path / "out"), tmp_path)
    image = sitk.ReadImage(tmp_path / "out/lq_bar/a.nii.gz")
    assert image.GetSize()[2] == 2 and image.GetOrigin()[2] == 5.0
    record = json.loads((tmp_path / "out/records/a.json").read_text())
    assert record["asked"]["config.seed"] == 0
    assert "2 of 4 lq slices" in caplog.text and "without a partner" in caplog.text

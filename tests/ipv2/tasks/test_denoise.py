"""Task denoise: formats, DICOM, padding, 2.5-D, tiles, resumption, messages."""

import errno
import json
import os
import shutil

import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk

from common.checkpoint import load_manifest
from common.errors import UserError
from common.version import COMMIT, STATED, VERSION
from ipv2.ct_io import (
    PADDING_HU,
    ReadOptions,
    Slice,
    Volume,
    image_writing,
    read_volume,
    write_volume,
)
from ipv2.inference.stored_hu import restored
from ipv2.tasks.denoise import denoise
from tests.ipv2.ct_files import make_series, make_slice, save
from tests.ipv2.exports import config_of, export_network
from tests.oracles.thorax import thorax

SIZE = 64
COUNT = 3
Y, X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
OUTSIDE = np.hypot(Y, X) > 0.52 * SIZE
# HU are written as whole numbers: half a unit, and float32's digits at 1000 HU.
ROUNDING = 0.51


def chest(count=COUNT, seed=0):
    """(count, SIZE, SIZE) whole HU with noise."""
    noise = np.random.default_rng(seed).normal(0, 40, (count, SIZE, SIZE))
    return np.rint(np.clip(thorax(SIZE).hu + noise, -1024, 3071)).astype(np.float32)


def volume_of(hu, **fields):
    given = {"spacing_mm": (5.0, 0.7, 0.8), "integer": True} | fields
    return Volume(hu=hu.astype(np.float32), **given)


def write_series(folder, hu, *, outside, padding=None, **attributes):
    """The HU as a scanner stores them; `outside` is stored outside its circle."""
    for index, image in enumerate(hu):
        stored = np.where(OUTSIDE, outside, image + 1024).astype(np.int32)
        data = make_slice(
            stored,
            position=(-5.0, 7.0, 5.0 * index),
            padding=padding,
            signed=True,
            bits=16,
            instance=index + 1,
            description="thin",
        )
        for key, value in attributes.items():
            setattr(data, key, value)
        save(data, folder / f"IM{index}")


def expected(apply, hu):
    """What the network makes of (slices, h, w) HU, in the range of 12 bits."""
    return np.clip(apply(hu[..., None]), -1024, 3071)


@pytest.fixture(scope="module")
def denoised(tmp_path_factory):
    """Volumes of every kind and two bad ones, denoised once."""
    folder = tmp_path_factory.mktemp("denoise")
    apply, _ = export_network(folder / "run")
    root = folder / "in"
    for seed, name in enumerate(
        ("p1/scan.nii.gz", "p1/scan.nii", "p3/scan.mha", "p3/head.mhd")
    ):
        write_volume(volume_of(chest(seed=seed)), root / name)
    write_volume(volume_of(chest() + 0.25, integer=False), root / "p3/scan.nrrd")
    # GE's mark of padding, -3024 HU; and one that only PixelPaddingValue tells.
    write_series(root / "p2/series", chest(seed=5), outside=-2000)
    write_series(root / "p2/tagged", chest(seed=6), outside=-500, padding=-500)
    save(make_slice(chest(1)[0] + 1024), root / "p4/one/a.dcm")
    (root / "p5").mkdir()
    (root / "p5/bad.nrrd").write_bytes(b"not an image")
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)
    write_volume(volume_of(chest(), direction=coronal), root / "p5/coronal.nii")
    denoise(config_of(root, folder / "out"), folder / "run")
    return folder, apply


VOLUMES = [
    *("p1/scan.nii.gz", "p1/scan.nii", "p3/scan.mha", "p3/head.mhd", "p3/scan.nrrd"),
    *("p2/series", "p2/tagged", "p4/one"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", VOLUMES)
def test_values_are_the_network_s_and_geometry_is_kept(denoised, name):
    folder, apply = denoised
    before, after = (read_volume(folder / part / name) for part in ("in", "out"))
    for field in ("spacing_mm", "origin_mm", "direction", "format", "integer"):
        assert getattr(after, field) == getattr(before, field), field
    result = expected(apply, before.hu)
    assert np.std(result - before.hu) > 10  # the network does something
    inside = ~OUTSIDE if name in ("p2/series", "p2/tagged") else np.ones_like(OUTSIDE)
    np.testing.assert_allclose(
        after.hu[:, inside], result[:, inside], rtol=0, atol=ROUNDING
    )


@pytest.mark.slow
def test_names_formats_and_records(denoised):
    folder, _ = denoised
    out = folder / "out"
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    images = {name for name in VOLUMES if name.startswith(("p1", "p3"))}
    assert files == images | {"p3/head.raw", "p4/one/a.dcm"} | {
        f"{name}.json" for name in VOLUMES
    } | {f"p2/{s}/IM{i}" for s in ("series", "tagged") for i in range(COUNT)}
    record = json.loads((out / "p3/scan.mha.json").read_text())
    manifest = load_manifest(folder / "run/export")
    assert record["asked"]["network"] == {
        "model": manifest["model"],
        "sha256": manifest["sha256"],
    }
    assert record["asked"]["software_version"] == VERSION
    assert record["made"]["commit"] == COMMIT
    assert COMMIT is None or COMMIT not in json.dumps(record["asked"])
    assert record["made"]["manifest"]["step"] == 7
    assert sitk.ReadImage(out / "p3/scan.nrrd").GetPixelID() == sitk.sitkFloat32
    assert sitk.ReadImage(out / "p1/scan.nii.gz").GetPixelID() == sitk.sitkInt16


def test_padding_comes_out_as_padding(denoised):
    folder, _ = denoised
    for name, hu in (("series", -3024), ("tagged", PADDING_HU)):
        reader = sitk.ImageSeriesReader()
        found = reader.GetGDCMSeriesFileNames(str(folder / "out/p2" / name))
        reader.SetFileNames(found)
        stored = sitk.GetArrayFromImage(reader.Execute())
        assert np.all(stored[:, OUTSIDE] == hu)
        assert stored[:, ~OUTSIDE].min() >= -1024
        assert np.all(read_volume(folder / "out/p2" / name).hu[:, OUTSIDE] == -1024)
        assert "PixelPaddingValue" not in pydicom.dcmread(found[0])


def test_padding_is_distinguished_from_clipped_air():
    hu = np.full((32, 32), -1000, np.float32)
    hu[0, :16] = hu[1:5, 0:4] = hu[16:, 31] = PADDING_HU
    hu[31, 3:18] = hu[9:13, 9:25] = PADDING_HU  # too short; not at the border
    result = np.full((32, 32), -990, np.float32)
    result[7, 7], result[7, 6] = -1100, 5000
    wanted = np.full((32, 32), -990, np.float32)
    # As a scanner of 12 bits stores it.
    wanted[7, 7], wanted[7, 6] = -1024, 3071
    marked = wanted.copy()
    wanted[0, :16] = wanted[1:5, 0:4] = wanted[16:, 31] = -1024
    found = restored(Slice(hu=hu, stored=hu), result, (-1024, 3071))
    np.testing.assert_array_equal(found, wanted)
    # A file that marks padding, by a value or a tag, means that and no more.
    stored = hu.copy()
    stored[0, 0], stored[5, 5] = -2048, 1976
    hu[5, 5] = PADDING_HU
    marked[0, 0], marked[5, 5] = -2048, -1024
    found = restored(Slice(hu=hu, stored=stored), result, (-1024, 3071))
    np.testing.assert_array_equal(found, marked)


def test_dicom_says_what_it_is(denoised):
    folder, _ = denoised
    manifest = load_manifest(folder / "run/export")
    series = set()
    for index in range(COUNT):
        was = pydicom.dcmread(folder / f"in/p2/series/IM{index}")
        now = pydicom.dcmread(folder / f"out/p2/series/IM{index}")
        series.add(now.SeriesInstanceUID)
        assert now.SOPInstanceUID != was.SOPInstanceUID
        assert now.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        short = manifest["sha256"][:8]
        assert now.SeriesDescription == (
            f"thin (denoised: cnn10 {short}, ipv2 {VERSION})"
        )
        for words in (
            f"software version {STATED}: network cnn10",
            "trained for 7 steps, on pairs of purification v2",
            f"SHA-256 {manifest['sha256']}, exported by version {STATED}",
            "whole slices",
        ):
            assert words in now.DerivationDescription
        (source,) = now.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == was.SOPInstanceUID
        for key in (
            *("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID"),
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
            *("InstanceNumber", "SliceThickness"),
        ):
            assert now[key].value == was[key].value, key
        assert now.RescaleSlope == 1 and now.RescaleType == "HU"
    assert len(series) == 1 and series != {was.SeriesInstanceUID}


def test_simpleitk_reads_the_series_where_the_input_was(denoised):
    folder, _ = denoised
    images = []
    for part in ("in", "out"):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(
            reader.GetGDCMSeriesFileNames(str(folder / part / "p2/series"))
        )
        images.append(reader.Execute())
    before, after = images
    assert after.GetOrigin() == before.GetOrigin()
    assert after.GetSpacing() == before.GetSpacing()
    assert after.GetDirection() == before.GetDirection()
    assert after.GetSize() == before.GetSize()


def test_the_same_command_goes_on_with_what_is_missing(denoised, capsys, caplog):
    folder, _ = denoised
    out = folder / "out"
    kept = (out / "p1/scan.nii.gz").stat().st_mtime_ns
    content = (out / "p3/scan.mha").read_bytes()
    pixels = pydicom.dcmread(out / "p2/series/IM1").PixelData
    (out / "p3/scan.mha").unlink()
    shutil.rmtree(out / "p2/series")
    # Another batch size is the same work.
    config = config_of(folder / "in", out, **{"denoise.batch_size": 1})
    with caplog.at_level("INFO", logger="absl"):
        denoise(config, folder / "run")
    assert (out / "p3/scan.mha").read_bytes() == content
    assert pydicom.dcmread(out / "p2/series/IM1").PixelData == pixels
    assert (out / "p1/scan.nii.gz").stat().st_mtime_ns == kept
    assert "6 of 10 volumes are there already" in caplog.text
    assert "bad.nrrd" in caplog.text and "not axial slices" in caplog.text
    printed = capsys.readouterr().out
    assert "2 volumes denoised with cnn10" in printed
    assert "6 there before, 2 skipped" in printed
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]


def test_another_network_is_not_mixed_in(denoised, tmp_path):
    folder, _ = denoised
    export_network(tmp_path, seed=1)
    config = config_of(folder / "in", folder / "out")
    with pytest.raises(UserError, match=r"(?s)network\.sha256: .*denoise\.overwrite"):
        denoise(config, tmp_path)


@pytest.mark.slow
def test_an_interrupted_series_leaves_no_trace_and_is_made_again(
    denoised, tmp_path, monkeypatch
):
    folder, apply = denoised
    make_series(tmp_path / "in/a", 2, size=SIZE)
    hu = make_series(tmp_path / "in/b", 5, size=SIZE)
    config = config_of(tmp_path / "in", tmp_path / "out")
    written = 0

    def stop(*arguments):
        nonlocal written
        written += 1
        if written == 5:
            raise KeyboardInterrupt
        return restored(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ipv2.volumes.denoised.restored", stop)
        denoise(config, folder / "run")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "a.json"]
    denoise(config, folder / "run")
    np.testing.assert_allclose(
        read_volume(tmp_path / "out/b").hu, expected(apply, hu), rtol=0, atol=ROUNDING
    )


def test_a_series_that_breaks_in_the_middle_leaves_nothing(denoised, tmp_path, caplog):
    folder, _ = denoised
    make_series(tmp_path / "in/bad", 3, size=SIZE)
    make_series(tmp_path / "in/good", 3, size=SIZE)
    path = tmp_path / "in/bad/IM001"  # the last slice
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"  # JPEG 2000, not so
    data.PixelData = pydicom.encaps.encapsulate([b"no image at all"])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    save(data, path)
    denoise(config_of(tmp_path / "in", tmp_path / "out"), folder / "run")
    assert "IM001" in caplog.text
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["good", "good.json"]


@pytest.mark.slow
def test_neighbouring_slices_go_in_with_the_slice(tmp_path):
    apply, _ = export_network(tmp_path / "run", name="cnn10", channels=3)
    hu = chest(4)
    write_volume(volume_of(hu), tmp_path / "a.mha")
    config = config_of(tmp_path / "a.mha", tmp_path / "out")
    denoise(config, tmp_path / "run")
    stack = np.stack([hu[[0, 0, 1, 2]], hu, hu[[1, 2, 3, 3]]], axis=-1)
    result = np.clip(apply(stack), -1024, 3071)
    found = read_volume(tmp_path / "out/a.mha").hu
    np.testing.assert_allclose(found, result, rtol=0, atol=ROUNDING)
    reversed_stack = np.clip(apply(stack[..., ::-1]), -1024, 3071)
    assert np.abs(found - reversed_stack).max() > 5


@pytest.mark.slow
def test_neighbours_of_uneven_slices_are_refused(denoised, tmp_path, caplog):
    export_network(tmp_path / "run", name="cnn10", channels=3)
    for index, z in enumerate((0.0, 5.0, 15.0)):
        data = make_slice(chest(1)[0] + 1024, position=(0, 0, z), instance=index + 1)
        save(data, tmp_path / f"in/a/IM{index}")
    changes = {"data.gaps": "allow"}
    with pytest.raises(UserError, match="no volume could be denoised"):
        denoise(
            config_of(tmp_path / "in", tmp_path / "out", **changes), tmp_path / "run"
        )
    assert "reads 3 neighbouring slices" in caplog.text
    denoise(
        config_of(tmp_path / "in", tmp_path / "out", **changes), denoised[0] / "run"
    )


@pytest.mark.slow
def test_tiles_show_no_seams(denoised, tmp_path):
    folder, apply = denoised
    hu = chest(2)
    write_volume(volume_of(hu), tmp_path / "a.mha")
    config = config_of(tmp_path / "a.mha", tmp_path / "out", **{"denoise.tile": 24})
    denoise(config, folder / "run")
    found = read_volume(tmp_path / "out/a.mha").hu
    np.testing.assert_allclose(found, expected(apply, hu), rtol=0, atol=ROUNDING)


@pytest.mark.slow
def test_a_single_dicom_file(denoised, tmp_path):
    folder, apply = denoised
    hu = chest(1)
    save(make_slice(hu[0] + 1024, description="scout"), tmp_path / "in/a.dcm")
    denoise(config_of(tmp_path / "in/a.dcm", tmp_path / "out"), folder / "run")
    found = read_volume(tmp_path / "out/a.dcm")
    assert found.format == "dicom"
    np.testing.assert_allclose(found.hu, expected(apply, hu), rtol=0, atol=ROUNDING)
    assert pydicom.dcmread(tmp_path / "out/a.dcm").SeriesDescription.startswith("scout")


def test_png_with_its_window(denoised, tmp_path):
    folder, apply = denoised
    grey = np.rint(np.clip((chest(1)[0] + 1350) / 1500 * 255, 0, 255)).astype(np.uint8)
    PIL.Image.fromarray(grey).save(tmp_path / "a_07.png")
    window = {"data.window": (-600.0, 1500.0)}
    source, output = tmp_path / "a_07.png", tmp_path / "out"
    denoise(config_of(source, output, **window), folder / "run")
    after = np.asarray(PIL.Image.open(output / "a_07.png"))
    assert after.dtype == np.uint8 and after.shape == grey.shape
    hu = read_volume(source, ReadOptions(window=(-600.0, 1500.0))).hu
    wanted = np.clip((apply(hu[..., None]) + 1350) / 1500 * 255, 0, 255)
    np.testing.assert_allclose(after, wanted[0], rtol=0, atol=ROUNDING)


def test_png_without_a_window_says_what_is_missing(denoised, tmp_path, caplog):
    PIL.Image.new("L", (SIZE, SIZE), 9).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="no volume could be denoised"):
        denoise(config_of(tmp_path / "a.png", tmp_path / "out"), denoised[0] / "run")
    assert "--config.data.window" in caplog.text


def test_grey_levels_are_refused_and_nothing_is_left(denoised, tmp_path, caplog):
    grey = np.clip(chest(2), 0, 255)
    write_volume(volume_of(grey), tmp_path / "in/a.nii")
    config = config_of(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match="no volume could be denoised"):
        denoise(config, denoised[0] / "run")
    assert "a.nii" in caplog.text
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_not_finite_is_listed(tmp_path, caplog):
    export_network(tmp_path / "run", strength=np.inf)
    write_volume(volume_of(chest(1)), tmp_path / "a.mha")
    with pytest.raises(UserError, match="no volume could be denoised"):
        denoise(config_of(tmp_path / "a.mha", tmp_path / "out"), tmp_path / "run")
    assert "result is not finite (slice 0)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"denoise.input": ""}, r"needs one input: --config\.denoise\.input=DIR"),
        ({"denoise.input": "/no/such"}, r"config\.denoise\.input: got '/no/such'"),
        ({"denoise.tile": -2}, r"config\.denoise\.tile: got -2"),
        ({"denoise.tile": 14}, r"config\.denoise\.tile: got 14, accepted: at least 15"),
        ({"denoise.tile": 24, "denoise.overlap": 2}, r"denoise\.overlap: got 2"),
        ({"denoise.batch_size": 0}, r"config\.denoise\.batch_size: got 0"),
    ],
)
def test_wrong_options_are_named(denoised, tmp_path, changes, said):
    folder, _ = denoised
    config = config_of(folder / "in/p1", tmp_path / "out", **changes)
    with pytest.raises(UserError, match=said):
        denoise(config, folder / "run")


def test_the_output_is_never_in_the_input(denoised):
    folder, _ = denoised
    for output in (folder / "in", folder / "in/p1/out"):
        with pytest.raises(UserError, match=r"config\.denoise\.output: .*another"):
            denoise(config_of(folder / "in", output), folder / "run")


def test_the_data_of_a_user_s_header_are_replaced_with_overwrite_only(
    denoised, tmp_path
):
    write_volume(volume_of(chest(1)), tmp_path / "in/scan.mhd")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scan.raw").write_bytes(b"mine")
    config = config_of(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match=r"out/scan\.raw: is there, without"):
        denoise(config, denoised[0] / "run")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["scan.raw"]
    assert (tmp_path / "out/scan.raw").read_bytes() == b"mine"


def test_slices_of_others_stay_with_or_without_overwrite(denoised, tmp_path):
    make_series(tmp_path / "in/a", 2, size=SIZE)
    make_series(tmp_path / "out/a", 5, size=SIZE)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for overwrite in (False, True):
        changes = {"denoise.overwrite": overwrite}
        config = config_of(tmp_path / "in", tmp_path / "out", **changes)
        with pytest.raises(UserError, match=r"out/a/IM00\d: is "):
            denoise(config, denoised[0] / "run")
    after = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert after == before and len(after) == 5


def test_a_source_that_changed_is_another_source(denoised, tmp_path):
    hu = chest(1)
    write_volume(volume_of(hu), tmp_path / "in/a.mha")
    config = config_of(tmp_path / "in", tmp_path / "out")
    denoise(config, denoised[0] / "run")
    write_volume(volume_of(hu + 1), tmp_path / "in/a.mha", overwrite=True)
    with pytest.raises(
        UserError, match=r"(?s)source\.sha256: .*denoise\.overwrite=True"
    ):
        denoise(config, denoised[0] / "run")
    config.denoise.overwrite = True
    denoise(config, denoised[0] / "run")
    result = expected(denoised[1], hu + 1)
    found = read_volume(tmp_path / "out/a.mha").hu
    np.testing.assert_allclose(found, result, rtol=0, atol=ROUNDING)


def test_a_full_disk_stops_one_volume_and_not_the_rest(
    denoised, tmp_path, monkeypatch, caplog
):
    for name in ("a.mha", "b.nii", "c.mha"):
        write_volume(volume_of(chest(2)), tmp_path / "in" / name)
    tobytes = image_writing._stored

    def full(grid, hu):
        if grid.format == "nifti" and hu.any():  # not the header's image
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return tobytes(grid, hu)

    monkeypatch.setattr(image_writing, "_stored", full)
    denoise(config_of(tmp_path / "in", tmp_path / "out"), denoised[0] / "run")
    assert f"{tmp_path / 'in/b.nii'}: No space left on device" in caplog.text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("a.mha", "a.mha.json", "c.mha", "c.mha.json")
    ]


def test_a_user_s_file_is_replaced_with_overwrite_only(denoised, tmp_path):
    folder, apply = denoised
    hu = chest(1)
    write_volume(volume_of(hu), tmp_path / "in/a.mha")
    mine = write_volume(volume_of(hu + 1), tmp_path / "out/a.mha")
    config = config_of(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match=r"out/a\.mha: is there, without"):
        denoise(config, folder / "run")
    np.testing.assert_array_equal(read_volume(mine).hu, hu + 1)
    config.denoise.overwrite = True
    denoise(config, folder / "run")
    result = expected(apply, hu)
    np.testing.assert_allclose(read_volume(mine).hu, result, rtol=0, atol=ROUNDING)


def _edit(path, **changes):
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": "grey/255"}, "not the export of a denoiser in HU/1000"),
        ({"model": None}, "not the export of a denoiser in HU/1000"),
        (
            {"model": {"name": "cnn11", "dtype": "float32"}},
            "no such network: .*cnn11",
        ),
        (
            {"model": {"name": "cnn10", "dtype": "float32", "depth": 3}},
            "no such network: .*depth",
        ),
        (
            {"model": {"name": "cnn10", "dtype": "float32", "channels": 3}},
            r"of another network:\n.*conv1/kernel: stored",
        ),
        ({"format_version": 2}, "format version 2, .*Update the software"),
    ],
)
def test_a_manifest_of_another_network_is_refused(denoised, tmp_path, changes, said):
    folder, _ = denoised
    shutil.copytree(folder / "run", tmp_path / "run")
    _edit(tmp_path / "run/export/manifest.json", **changes)
    config = config_of(folder / "in/p1", tmp_path / "out")
    with pytest.raises(UserError, match=f"(?s){said}"):
        denoise(config, tmp_path / "run")


def test_a_workdir_without_a_network_says_so(denoised, tmp_path):
    folder, _ = denoised
    config = config_of(folder / "in/p1", tmp_path / "out")
    with pytest.raises(UserError, match="no exported network here"):
        denoise(config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tile"),
    [
        ({"name": "unet", "width": 2, "levels": 1}, 40),
        ({"name": "dncnn", "width": 4, "depth": 4}, 20),  # with batch statistics
        ({"name": "redcnn", "width": 2}, 48),
    ],
    ids=["unet", "dncnn", "redcnn"],
)
def test_tiles_show_no_seams_at_sizes_that_fit_no_stride(tmp_path, model, tile):
    apply, _ = export_network(tmp_path / "run", **model)
    hu = chest(1)[:, :61, :59]
    write_volume(volume_of(hu), tmp_path / "a.mha")
    config = config_of(tmp_path / "a.mha", tmp_path / "out", **{"denoise.tile": tile})
    denoise(config, tmp_path / "run")
    found = read_volume(tmp_path / "out/a.mha").hu
    wanted = expected(apply, hu)
    assert np.std(wanted - hu) > 1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING)


@pytest.mark.slow
def test_what_sees_the_whole_slice_is_cut_by_default_and_flows_are_integrated(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("ipv2.inference.tiling.DEFAULT_TILE", 32)
    apply, _ = export_network(tmp_path / "run", name="fm", width=8)
    hu = chest(1)
    write_volume(volume_of(hu), tmp_path / "a.mha")
    config = config_of(tmp_path / "a.mha", tmp_path / "out", **{"flow.steps": 8})
    denoise(config, tmp_path / "run")
    record = json.loads((tmp_path / "out/a.mha.json").read_text())
    asked = record["asked"]
    assert asked["tiling"]["tile"] == 32 and asked["tiling"]["overlap"] == 8
    assert asked["network"]["flow"] == {"sampler": "euler", "steps": 8}
    found = read_volume(tmp_path / "out/a.mha").hu
    # A corner that one tile alone covers is what that tile gives.
    corner = expected(apply, hu[:, :32, :32])[:, :20, :20]
    np.testing.assert_allclose(found[:, :20, :20], corner, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("named", ["run", "run/export"])
def test_a_named_network_needs_no_run_in_the_workdir(denoised, tmp_path, named):
    folder, apply = denoised
    write_volume(volume_of(chest()), tmp_path / "in/scan.mha")
    config = config_of(tmp_path / "in/scan.mha", tmp_path / "out")
    config.denoise.model = str(folder / named)
    denoise(config, tmp_path / "elsewhere")
    after = read_volume(tmp_path / "out/scan.mha").hu
    assert np.abs(after - expected(apply, chest())).max() <= ROUNDING


def test_a_named_folder_without_a_network_says_so(tmp_path):
    write_volume(volume_of(chest()), tmp_path / "in/scan.mha")
    (tmp_path / "empty").mkdir()
    config = config_of(tmp_path / "in/scan.mha", tmp_path / "out")
    config.denoise.model = str(tmp_path / "empty")
    with pytest.raises(UserError, match=str(tmp_path / "empty")):
        denoise(config, tmp_path / "run")


@pytest.mark.slow
def test_an_embedded_scan_is_written_first(denoised, tmp_path):
    folder, _ = denoised
    config = config_of("", "")
    config.denoise.update({"embedded": "phantom", "model": str(folder / "run")})
    config.data.phantom_size, config.data.phantom_slices = 32, 2
    denoise(config, tmp_path / "work")
    (series,) = (tmp_path / "work/denoised").glob("*/")
    assert read_volume(series).hu.shape == (2, 32, 32)


@pytest.mark.parametrize("given", [("", ""), ("here", "phantom")])
def test_one_input_is_needed(tmp_path, given):
    (tmp_path / "here").mkdir()
    config = config_of(tmp_path / "here" if given[0] else "", tmp_path / "out")
    config.denoise.embedded = given[1]
    with pytest.raises(UserError, match="needs one input"):
        denoise(config, tmp_path)

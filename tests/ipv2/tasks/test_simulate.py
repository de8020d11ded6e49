"""Task simulate: names, formats, HU, DICOM attributes, noise, resumption, messages."""

import dataclasses
import json
import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk

from common.errors import Incomplete, UserError
from common.nested import flatten
from common.version import STATED
from configs import simulate as recipe
from ipv2.ct_io import PADDING_HU, Volume, open_volume, read_volume, write_volume
from ipv2.inference.stored_hu import padding, stored_range
from ipv2.kernels.photon_noise import simulate_low_dose
from ipv2.tasks.check import check_simulate_config
from ipv2.tasks.job_settings import simulate_settings
from ipv2.tasks.rules import SIMULATE_RULES
from ipv2.tasks.scans import check_scan
from ipv2.tasks.simulate import simulate
from ipv2.volumes.low_dose import simulated_slices
from tests.ipv2.ct_files import make_slice, save
from tests.ipv2.ct_io.enhanced_ct import make_enhanced
from tests.oracles.thorax import thorax

SIZE = 64
MM = 400 / SIZE
COUNT = 3
SCAN = {"SeriesDescription": "thin", "XRayTubeCurrent": "188", "Exposure": "150"}
# Outside the circle that the scanner reconstructs.
Y, X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
OUTSIDE = np.hypot(Y, X) > 0.52 * SIZE


def chest(count=COUNT, seed=0):
    """(count, SIZE, SIZE) whole HU with a little noise, air about -1000."""
    noise = np.random.default_rng(seed).normal(0, 5, (count, SIZE, SIZE))
    return np.rint(thorax(SIZE).hu + noise).astype(np.float32)


def volume_of(hu, **fields):
    given = {"spacing_mm": (5.0, MM, MM), "integer": True} | fields
    return Volume(hu=hu.astype(np.float32), **given)


def write_series(folder, hu, **attributes):
    """The HU as a scanner would store them, padded outside its circle."""
    for index, image in enumerate(hu):
        # -1524 HU, where no tissue lies, but which the tag alone tells to be padding.
        stored = np.where(OUTSIDE, -500, image + 1024).astype(np.int32)
        data = make_slice(
            stored,
            position=(0, 0, 5.0 * index),
            spacing=(MM, MM),
            padding=-500,
            signed=True,
            bits=16,
            instance=index + 1,
        )
        for key, value in (SCAN | attributes).items():
            setattr(data, key, value)
        data.CTDIvol = 10.6
        phantom = pydicom.Dataset()
        phantom.CodeValue = "113691"
        phantom.CodingSchemeDesignator = "DCM"
        phantom.CodeMeaning = "IEC Body Dosimetry Phantom"
        data.CTDIPhantomTypeCodeSequence = [phantom]
        data.IrradiationEventUID = "1.2.3.4"
        data.AcquisitionUID = "1.2.3.5"  # younger than SimpleITK's dictionary
        save(data, folder / f"IM{index}")


def config_of(source, output, **changes):
    config = recipe.get_config()
    config.data.input, config.output = str(source), str(output)
    config.dose, config.noise.views, config.batch_size = 0.1, 24, 2
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Four volumes of four kinds and two bad files, simulated once."""
    folder = tmp_path_factory.mktemp("simulate")
    root = folder / "in"
    write_volume(volume_of(chest(seed=1)), root / "p1/scan.nii.gz")
    write_series(root / "p2/series", chest(seed=2))
    write_volume(volume_of(chest(seed=3)), root / "p3/scan.mha")
    float_hu = chest(seed=4) + 0.25
    write_volume(volume_of(float_hu, integer=False), root / "p3/scan.nrrd")
    (root / "p4").mkdir()
    (root / "p4/bad.nrrd").write_bytes(b"not an image")
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)
    write_volume(volume_of(chest(), direction=coronal), root / "p5/coronal.nii")
    simulate(config_of(root, folder / "out"), folder / "work")
    return folder


@pytest.mark.slow
def test_results_have_the_input_s_names_and_formats(simulated):
    out = simulated / "out"
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    volumes = ("p1/scan.nii.gz", "p3/scan.mha", "p3/scan.nrrd")
    assert files == {
        *volumes,
        *(f"{name}.json" for name in (*volumes, "p2/series")),
        *(f"p2/series/IM{index}" for index in range(COUNT)),
    }
    image = sitk.ReadImage(out / "p3/scan.nrrd")
    assert image.GetPixelID() == sitk.sitkFloat32
    assert sitk.ReadImage(out / "p1/scan.nii.gz").GetPixelID() == sitk.sitkInt16


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["p1/scan.nii.gz", "p2/series", "p3/scan.mha", "p3/scan.nrrd"]
)
def test_hu_are_kept_and_noise_is_added(simulated, name):
    before, after = (read_volume(simulated / part / name) for part in ("in", "out"))
    assert after.spacing_mm == before.spacing_mm
    assert after.origin_mm == before.origin_mm
    assert after.direction == before.direction
    added = after.hu - before.hu
    truth = thorax(SIZE)
    soft = np.broadcast_to(truth.body & ~truth.lung, added.shape) & (before.hu < 100)
    lung = np.broadcast_to(truth.lung, added.shape)
    for region in (soft, lung):
        count = np.count_nonzero(region)
        assert added[region].std() > 1
        # Noise of filtered backprojection is anticorrelated, so that 4 standard errors
        # of independent pixels are generous; 0.5 for rounding.
        assert abs(added[region].mean()) < 4 * added[region].std() / count**0.5 + 0.5
    assert added[soft].std() > added[lung].std()
    record = json.loads((simulated / "out" / f"{name}.json").read_text())
    asked, scan = record["asked"], record["made"]["scan"]
    assert asked["config.dose"] == scan["dose"] == 0.1
    assert scan["photons"] == 1.5e5 and asked["config.seed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("p1/scan.nii.gz", -1024, 3071),
        ("p3/scan.nrrd", -1024, 3071),
        ("wide.mha", -1999, 31743),
    ],
)
def test_slices_one_by_one_are_the_volume_at_once(simulated, tmp_path, name, low, high):
    """To the bit: the range is the whole volume's, and batches are the same."""
    hu = chest(seed=6)
    hu[0, 5, 5], hu[2, 9, 9] = -1500, 4000
    path = simulated / "in" / name
    if name == "wide.mha":
        path = write_volume(volume_of(hu), tmp_path / name)
    volume = read_volume(path)
    scan = simulate_settings(config_of("", "")).noise
    rng = jax.random.fold_in(jax.random.key(7), zlib.crc32(b"p/a"))
    rngs = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(COUNT))
    whole = []
    for places in ([0, 1], [2, 2]):
        images = jnp.asarray(volume.hu[jnp.asarray(places)])
        noisy = simulate_low_dose(rngs[jnp.asarray(places)], images, MM, scan)
        clipped = jnp.clip(noisy, low, high)
        whole += [*jnp.where(padding(images), PADDING_HU, clipped)]
    with open_volume(path) as source:
        found = [
            hu
            for _, hu in simulated_slices(
                source, scan, name="p/a", seed=7, batch_size=2
            )
        ]
    np.testing.assert_array_equal(found, np.stack(whole[:COUNT]))


@pytest.mark.slow
def test_dicom_says_what_it_is(simulated):
    series = set()
    for index in range(COUNT):
        was = pydicom.dcmread(simulated / f"in/p2/series/IM{index}")
        now = pydicom.dcmread(simulated / f"out/p2/series/IM{index}")
        series.add(now.SeriesInstanceUID)
        assert now.SOPInstanceUID != was.SOPInstanceUID
        assert now.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert now.SyntheticData == "YES"
        assert now.SeriesDescription == "thin (simulated 10 % dose)"
        for words in (
            f"ipv2 low-dose simulation 2, software version {STATED}: ",
            "Dose 0.1 of normal, source 1;",
            "150000 photons",
            "electronic variance 10;",
            "24 views; filter hann, cutoff 1; seed 0.",
            "times 0.1.",
        ):
            assert words in now.DerivationDescription
        (source,) = now.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == was.SOPInstanceUID
        assert source.ReferencedSOPClassUID == was.SOPClassUID
        assert (now.XRayTubeCurrent, now.Exposure, now.ExposureInuAs) == (19, 15, 15000)
        assert now.CTDIvol == pytest.approx(1.06)
        assert "IrradiationEventUID" not in now
        for key in (
            *(
                "StudyInstanceUID",
                "FrameOfReferenceUID",
                "PatientName",
                "AcquisitionUID",
            ),
            *("ImagePositionPatient", "PixelSpacing", "InstanceNumber"),
        ):
            assert now[key].value == was[key].value, key
    assert len(series) == 1 and series != {was.SeriesInstanceUID}


@pytest.mark.slow
def test_simpleitk_reads_the_series_where_the_input_was(simulated):
    images = []
    for part in ("in", "out"):
        reader = sitk.ImageSeriesReader()
        folder = str(simulated / part / "p2/series")
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        images.append(reader.Execute())
    before, after = images
    assert after.GetOrigin() == before.GetOrigin()
    assert after.GetSpacing() == before.GetSpacing()
    assert after.GetSize() == before.GetSize()
    hu = read_volume(simulated / "out/p2/series").hu
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), hu)


@pytest.mark.slow
def test_padding_is_left_alone_and_air_is_not(simulated):
    hu = read_volume(simulated / "out/p2/series").hu
    assert np.all(hu[:, OUTSIDE] == PADDING_HU)
    inside = hu[:, ~OUTSIDE]
    assert inside.std() > 0 and np.mean(inside == PADDING_HU) < 0.2
    assert hu.min() == PADDING_HU


@pytest.mark.slow
def test_photons_of_a_slice_follow_its_tube_current(tmp_path):
    write_series(tmp_path / "in", chest())
    for index, current in enumerate((100, 200, 300)):
        path = tmp_path / f"in/IM{index}"
        data = pydicom.dcmread(path)
        data.Exposure, data.XRayTubeCurrent = "150", str(current)
        save(data, path)
    simulate(config_of(tmp_path / "in", tmp_path / "out"), tmp_path / "work")
    scan = simulate_settings(config_of("", "")).noise
    rng = jax.random.fold_in(jax.random.key(0), zlib.crc32(b"in"))
    rngs = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(COUNT))
    hu = jnp.asarray(read_volume(tmp_path / "in").hu)
    found = read_volume(tmp_path / "out/in").hu
    for index, factor in enumerate((0.5, 1.0, 1.5)):
        own = dataclasses.replace(scan, photons=factor * scan.photons)
        expected = simulate_low_dose(rngs, hu, MM, own)[index]
        inside = ~OUTSIDE & (expected > -1024)
        # Half a unit: rounding to whole HU.
        np.testing.assert_allclose(
            found[index][inside], expected[inside], atol=0.501, rtol=0
        )
    tags = pydicom.dcmread(tmp_path / "out/in/IM2")
    assert "current over the mean (0.5 to 1.5)" in tags.DerivationDescription
    assert (tags.XRayTubeCurrent, tags.ExposureInuAs) == (30, 15000)
    record = json.loads((tmp_path / "out/in.json").read_text())
    assert record["made"]["relative_current"] == [0.5, 1.5]


def test_padding_reaches_the_border_and_clipped_air_is_none():
    hu = np.full((1, 32, 32), -1000.0, np.float32)
    expected = np.zeros_like(hu, bool)
    expected[0, :4, :9] = True
    hu[expected] = PADDING_HU
    hu[0, 10:12, 10:12] = hu[0, 5, 9] = PADDING_HU
    np.testing.assert_array_equal(padding(jnp.asarray(hu)), expected)


@pytest.mark.parametrize(
    ("hu", "expected"),
    [
        ((-1024, 3071), (-1024, 3071)),
        ((-900, 100), (-1024, 3071)),
        ((-1025, 3071), (-1999, 3071)),
        ((-1024, 3072), (-1024, 31743)),
    ],
)
def test_what_the_input_keeps_to_is_kept_to(hu, expected):
    assert stored_range(*hu) == expected


@pytest.mark.slow
@pytest.mark.optimized
def test_noise_is_the_slice_s_whatever_the_batch_and_its_neighbours(tmp_path):
    scan = simulate_settings(config_of("", "")).noise
    path = write_volume(volume_of(chest(4)), tmp_path / "a.mha")
    flat = write_volume(volume_of(np.repeat(chest(1), 2, axis=0)), tmp_path / "f.mha")

    def simulated_hu(path, name="a", seed=0, size=2):
        with open_volume(path) as source:
            slices = simulated_slices(
                source, scan, name=name, seed=seed, batch_size=size
            )
            return np.stack([hu for _, hu in slices])

    one, two = (simulated_hu(path, size=size) for size in (3, 2))
    # Sums in another order, in float32 HU of up to 1000.
    np.testing.assert_allclose(one, two, atol=0.05)
    np.testing.assert_array_equal(two, simulated_hu(path))
    slices = simulated_hu(flat)
    for other in (
        simulated_hu(path, name="b"),
        simulated_hu(path, seed=1),
        np.repeat(slices, 2, 0),
    ):
        assert np.std((two - other)[1]) > 1
    assert np.std(slices[0] - slices[1]) > 1


@pytest.mark.slow
def test_the_same_command_goes_on_with_what_is_missing(simulated, capsys, caplog):
    out = simulated / "out"
    config = config_of(simulated / "in", out)
    kept = (out / "p1/scan.nii.gz").stat().st_mtime_ns
    content = (out / "p3/scan.mha").read_bytes()
    (out / "p3/scan.mha").unlink()
    with caplog.at_level("INFO", logger="absl"):
        simulate(config, simulated / "work")
    assert (out / "p3/scan.mha").read_bytes() == content
    assert (out / "p1/scan.nii.gz").stat().st_mtime_ns == kept
    assert "3 of 6 volumes are there already" in caplog.text
    assert "2 skipped:" in caplog.text
    assert "bad.nrrd" in caplog.text and "not axial slices" in caplog.text
    printed = capsys.readouterr().out
    assert "1 volumes simulated at dose 0.1, 3 there before, 2 skipped" in printed
    assert not list(out.rglob("p4/*")) and not list(out.rglob("p5/*"))


@pytest.mark.slow
def test_other_options_are_not_mixed_in(simulated):
    changed = config_of(simulated / "in", simulated / "out", dose=0.2, seed=3)
    said = r"(?s)config\.dose: 0\.1 there, 0\.2 asked.*config\.overwrite=True"
    with pytest.raises(UserError, match=said):
        simulate(changed, simulated / "work")


@pytest.fixture
def quick(tmp_path):
    """Simulates at dose 1, which adds no noise and compiles nothing."""

    def run(source, **changes):
        config = config_of(tmp_path / source, tmp_path / "out", dose=1.0, **changes)
        simulate(config, tmp_path / "work")

    return run


@pytest.mark.slow
def test_another_window_or_pixel_size_is_another_result(quick, tmp_path):
    PIL.Image.new("L", (SIZE, SIZE), 99).save(tmp_path / "a.png")
    stated = {"data.window": (-600.0, 1500.0), "data.pixel_mm": 0.8}
    quick("a.png", **stated)
    quick("a.png", **stated)
    for key, value, said in (
        ("window", (-500.0, 1500.0), r"window: \[-600\.0, 1500\.0\] there, \[-500"),
        ("pixel_mm", 0.7, r"pixel_mm: 0\.8 there, 0\.7 asked"),
    ):
        with pytest.raises(UserError, match=rf"config\.data\.{said}"):
            quick("a.png", **stated | {f"data.{key}": value})


def test_the_corrected_command_goes_on(quick, tmp_path, caplog, capsys):
    """What a message asks for is no other result for what was made without it."""
    write_volume(volume_of(chest(1)), tmp_path / "in/a.mha")
    PIL.Image.new("L", (SIZE, SIZE), 99).save(tmp_path / "in/b.png")
    quick("in")
    assert "--config.data.window" in caplog.text
    quick("in", **{"data.window": (-600.0, 1500.0), "data.pixel_mm": 0.8})
    printed = capsys.readouterr().out
    assert "1 volumes simulated at dose 1, 1 there before, 0 skipped" in printed


@pytest.mark.slow
def test_another_series_of_the_folder_is_another_result(quick, tmp_path):
    for series, start in (("1.2.3", 0), ("1.2.4", 1)):
        write_series(tmp_path / "tmp", chest(2, start), SeriesInstanceUID=series)
        for path in (tmp_path / "tmp").iterdir():
            (tmp_path / "in").mkdir(exist_ok=True)
            path.rename(tmp_path / "in" / f"{start}{path.name}")
    quick("in", **{"data.series": "1.2.3"})
    quick("in", **{"data.series": "1.2.3"})
    with pytest.raises(UserError, match=r"data\.series: '1\.2\.3' there, '1\.2\.4' "):
        quick("in", **{"data.series": "1.2.4"})


def _replaced(folder):
    write_volume(volume_of(chest(2, seed=9)), folder / "a.mha", overwrite=True)


def _newer(folder):
    """The same number of bytes."""
    content = bytearray((folder / "b.nii").read_bytes())
    content[-1] ^= 1
    (folder / "b.nii").write_bytes(content)


def _with_a_slice_less(folder):
    (folder / "c/IM1").unlink()


def _with_other_values_beside(folder):
    content = (folder / "d.raw").read_bytes()
    (folder / "d.raw").write_bytes(content[2:] + content[:2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [_replaced, _newer, _with_a_slice_less, _with_other_values_beside]
)
def test_a_source_that_changed_is_another_source(quick, tmp_path, change):
    for name in ("a.mha", "b.nii", "d.mhd"):
        write_volume(volume_of(chest(1)), tmp_path / "in" / name)
    write_series(tmp_path / "in/c", chest(2))
    quick("in")
    # Elsewhere, with the same names, sizes and times, they are the same.
    shutil.move(tmp_path / "in", tmp_path / "moved")
    quick("moved")
    change(tmp_path / "moved")
    with pytest.raises(UserError, match=r"source\.sha256: '[0-9a-f]+' there"):
        quick("moved")
    quick("moved", overwrite=True)
    quick("moved")


def test_files_that_are_no_results_are_recognised(quick, tmp_path):
    """Three text files named as results, and one named as a record."""
    for name in "abc":
        write_volume(volume_of(chest(1)), tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.nii.gz").write_text("notes")
    (tmp_path / "out/c.nii.gz.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match=r"(?s)a\.nii\.gz: is there.*gz\.json: not a"):
        quick("in")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.nii.gz",
        "c.nii.gz.json",
    ]
    assert (tmp_path / "out/a.nii.gz").read_text() == "notes"


def test_the_longest_names_are_simulated(quick, tmp_path):
    long = "n" * 248 + ".nii.gz"  # as long as a name can be
    write_volume(volume_of(chest(1)), tmp_path / "in/short.nii.gz")
    (tmp_path / "in/short.nii.gz").rename(tmp_path / "in" / long)
    quick("in")
    np.testing.assert_array_equal(
        read_volume(tmp_path / "out" / long).hu, read_volume(tmp_path / "in" / long).hu
    )
    quick("in")


def test_skipped_volumes_are_an_error_with_strict(quick, tmp_path):
    write_volume(volume_of(chest(1)), tmp_path / "in/a.mha")
    (tmp_path / "in/b.mha").write_bytes(b"nothing")
    quick("in")
    with pytest.raises(Incomplete, match="1 skipped"):
        quick("in", strict=True)
    (tmp_path / "in/b.mha").unlink()
    quick("in", strict=True)


def test_padding_comes_back_as_it_was(quick, tmp_path):
    """-2000 HU, which every reader knows, as it was; what a tag marked, at -1024 HU."""
    hu = np.where(OUTSIDE, -2000, chest(2)).astype(np.float32)
    write_volume(volume_of(hu), tmp_path / "in/a.nii")
    write_series(tmp_path / "in/b", chest(2))
    quick("in")
    stored = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out/a.nii"))
    np.testing.assert_array_equal(stored, hu)
    assert np.all(read_volume(tmp_path / "out/b").hu[:, OUTSIDE] == PADDING_HU)


@pytest.mark.slow
def test_files_of_others_are_replaced_with_overwrite_alone(tmp_path):
    hu = chest(2)
    write_volume(volume_of(hu), tmp_path / "in/a.mha")
    mine = write_volume(volume_of(hu + 1), tmp_path / "out/a.mha")
    config = config_of(tmp_path / "in", tmp_path / "out")
    with pytest.raises(
        UserError, match=r"out/a\.mha: is there, without a a\.mha\.json"
    ):
        simulate(config, tmp_path)
    np.testing.assert_array_equal(read_volume(mine).hu, hu + 1)
    config.overwrite = True
    simulate(config, tmp_path)
    assert np.std(read_volume(mine).hu - hu) > 1


def test_dose_one_changes_nothing(tmp_path):
    write_volume(volume_of(chest()), tmp_path / "a.mha")
    simulate(config_of(tmp_path / "a.mha", tmp_path / "out", dose=1.0), tmp_path)
    np.testing.assert_array_equal(
        read_volume(tmp_path / "out/a.mha").hu, read_volume(tmp_path / "a.mha").hu
    )


def test_a_single_series_goes_under_its_folder_s_name(tmp_path):
    write_series(tmp_path / "chest", chest(2))
    config = config_of(tmp_path / "chest", tmp_path / "out")
    simulate(config, tmp_path)
    assert len(list((tmp_path / "out/chest").iterdir())) == 2
    assert (tmp_path / "out/chest.json").is_file()


@pytest.mark.slow
def test_png_with_window_and_pixel_size(tmp_path):
    grey = np.clip(np.rint((chest(1)[0] + 1350) / 1500 * 255), 0, 255).astype(np.uint8)
    PIL.Image.fromarray(grey).save(tmp_path / "a_07.png")
    stated = {"data.window": (-600.0, 1500.0), "data.pixel_mm": MM}
    simulate(config_of(tmp_path / "a_07.png", tmp_path / "out", **stated), tmp_path)
    after = np.asarray(PIL.Image.open(tmp_path / "out/a_07.png"))
    assert after.dtype == np.uint8 and after.shape == grey.shape
    lung = thorax(SIZE).lung
    added = (after.astype(float) - grey)[lung] * 1500 / 255
    assert added.std() > 5 and abs(added.mean()) < 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "--config.data.window"),
        ({"data.window": (-600.0, 1500.0)}, "--config.data.pixel_mm"),
    ],
)
def test_png_without_them_says_what_is_missing(tmp_path, caplog, changes, said):
    PIL.Image.new("L", (SIZE, SIZE), 9).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="no volume could be simulated"):
        simulate(config_of(tmp_path / "a.png", tmp_path / "out", **changes), tmp_path)
    assert said in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dose": 0.0}, r"config\.dose: got 0\.0, accepted: a number above 0"),
        ({"dose": 1.5}, r"config\.dose: got 1\.5, .* at most 1"),
        ({"dose": 0.5, "input_dose": 0.25}, r"at most config\.input_dose \(0\.25\)"),
        ({"data.input": "/no/such"}, r"config\.data\.input: got '/no/such'"),
        ({"data.input": ""}, r"--config\.data\.input=DIR"),
        ({"data.embedded": "phantom"}, "give one input"),
    ],
)
def test_wrong_options_are_named(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        simulate(config_of(tmp_path, tmp_path / "out", **changes), tmp_path)


def test_the_output_is_never_in_the_input(tmp_path):
    root = tmp_path / "in"
    path = write_volume(volume_of(chest(1)), root / "a.mha")
    for output in (root, root / "out", tmp_path / "in/../in"):
        with pytest.raises(UserError, match=r"config\.output: .*give another"):
            simulate(config_of(root, output), tmp_path)
    for source in (root, path, root / "../in"):
        with pytest.raises(UserError, match=r"config\.output: \S+ holds the input"):
            simulate(config_of(source, tmp_path), tmp_path)
    with pytest.raises(UserError, match=rf"config\.output: {root} is the input folder"):
        simulate(config_of(path, root), tmp_path)
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(UserError, match=rf"{root}/out lies in the input folder {root}"):
        simulate(config_of(root, tmp_path / "link/out"), tmp_path)
    write_series(tmp_path / "series", chest(1))
    with pytest.raises(UserError, match=r"holds the input folder"):
        simulate(config_of(tmp_path / "series", tmp_path), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "link", "series"]


def test_a_link_of_the_output_does_not_lead_into_the_input(tmp_path):
    write_volume(volume_of(chest(1)), tmp_path / "in/p1/a.mha")
    before = (tmp_path / "in/p1/a.mha").read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/p1").symlink_to(tmp_path / "in/p1")
    with pytest.raises(UserError, match=r"config\.output: \S+ would be written on"):
        config = config_of(tmp_path / "in", tmp_path / "out", overwrite=True)
        simulate(config, tmp_path)
    assert (tmp_path / "in/p1/a.mha").read_bytes() == before


def test_a_multi_frame_file_becomes_a_series_of_its_name(quick, tmp_path):
    stored = np.rint(chest(2) + 1024).astype(np.uint16)
    save(make_enhanced(stored, spacing=("0.80", "0.80")), tmp_path / "scan.dcm")
    quick("scan.dcm")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["scan", "scan.json"]
    found = read_volume(tmp_path / "out/scan")
    np.testing.assert_array_equal(found.hu, stored.astype(np.float32) - 1024)
    quick("scan.dcm")


def test_an_output_beside_an_input_file_is_fine(quick, tmp_path):
    write_volume(volume_of(chest(1)), tmp_path / "a.mha")
    quick("a.mha")
    assert read_volume(tmp_path / "out/a.mha").shape == (1, SIZE, SIZE)


def test_two_volumes_of_one_place_are_refused(quick, tmp_path):
    """The values of both would go to a.raw."""
    write_volume(volume_of(chest(1)), tmp_path / "in/a.mhd")
    shutil.copy(tmp_path / "in/a.mhd", tmp_path / "in/a.MHD")
    with pytest.raises(UserError, match=r"a\.MHD and \S+a\.mhd would both .*a\.raw"):
        quick("in")


def test_a_folder_without_ct_says_so(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="no CT volume found"):
        simulate(config_of(tmp_path / "in", tmp_path / "out"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"spacing_mm": (5.0, 1.0, 1.1)}, "pixels of 1 x 1.1 mm"),
        ({"spacing_known": False}, "no pixel size"),
        ({"unit": "mask"}, "HU are needed"),
        ({"unit": "grey"}, "--config.data.window"),
        ({"hu": np.full((1, 8, 64), -9, np.float32)}, "at least 16 x 16"),
    ],
)
def test_what_cannot_be_simulated_says_why(fields, said):
    with pytest.raises(UserError, match=said):
        volume = dataclasses.replace(volume_of(chest(1)), **fields)
        check_scan(volume, volume.shape)


def test_every_variant_is_accepted():
    for variant in ("", *recipe.VARIANTS):
        check_simulate_config(recipe.get_config(variant))
    keys = {key for key, _ in flatten(recipe.get_config())}
    assert set(SIMULATE_RULES) <= keys


@pytest.mark.slow
def test_smoke_needs_nothing(tmp_path, capsys):
    simulate(recipe.get_config("smoke"), tmp_path)
    simulate(recipe.get_config("smoke"), tmp_path)
    assert "0 volumes simulated at dose 0.25, 1 there before" in capsys.readouterr().out
    before = read_volume(tmp_path / "input/phantom_64x3").hu
    after = read_volume(tmp_path / "low_dose/phantom_64x3").hu
    assert np.std((after - before)[before > -500]) > 10

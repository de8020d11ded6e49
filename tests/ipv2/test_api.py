"""`import ipv2`: the tasks' numbers without files, and what is told in a notebook."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pydicom
import pytest

import ipv2
from configs import ipv2_redcnn
from configs import simulate as simulate_recipe
from ipv2 import api
from ipv2.api.arguments import take_image
from ipv2.ct_io import read_volume
from ipv2.tasks.denoise import denoise
from ipv2.tasks.purify import purify_folder
from ipv2.tasks.simulate import simulate
from tests.ipv2.ct_files import make_slice, save
from tests.ipv2.exports import config_of, export_network
from tests.oracles.thorax import thorax

ROOT = Path(__file__).parents[2]
SIZE, MM, COUNT = 64, 6.25, 3
Y, X = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
OUTSIDE = np.hypot(Y, X) > 0.52 * SIZE


def chest(seed=0, *, shift=0.0, noise_hu=5.0, count=COUNT):
    """(count, SIZE, SIZE) whole HU."""
    noise = np.random.default_rng(seed).normal(0, noise_hu, (count, SIZE, SIZE))
    return np.rint(thorax(SIZE, shift=shift).hu + noise).astype(np.float32)


def write_series(folder, hu):
    """As a scanner stores it, -3024 HU outside its circle."""
    for index, image in enumerate(hu):
        data = make_slice(
            np.where(OUTSIDE, -2000, image + 1024).astype(np.int32),
            position=(0.0, 0.0, 5.0 * index),
            spacing=(MM, MM),
            signed=True,
            bits=16,
            instance=index + 1,
            description="thin",
        )
        data.XRayTubeCurrent = "200"
        save(data, folder / f"IM{index}")
    return folder


def pixels(folder):
    """Stored HU of a series that this software wrote, by file name."""
    found = {}
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        found[path.name] = data.pixel_array.astype(int) + int(data.RescaleIntercept)
    return found


def same_series(a, b):
    first, second = pixels(a), pixels(b)
    assert first.keys() == second.keys() and len(first) == COUNT
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    write_series(folder / "in/a", chest())
    write_series(folder / "pair/lq/a", chest(1, shift=0.03, noise_hu=60))
    write_series(folder / "pair/gt/a", chest(2))
    export_network(folder / "run")
    return folder


@pytest.fixture(scope="module")
def net(files):
    return ipv2.load_denoiser(files / "run")


def _modules_after(code):
    """What a fresh process has imported after some code."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else():
    modules = _modules_after("import ipv2")
    assert "ipv2" in modules and not {"ipv2.api", "jax", "numpy"} & modules


@pytest.mark.slow
def test_importing_a_kernel_imports_little_else():
    modules = _modules_after("import ipv2.kernels.otsu")
    assert "ipv2.kernels.otsu" in modules
    heavy = {"SimpleITK", "flax", "pydicom", "orbax", "ml_collections", "ipv2.api"}
    assert not heavy & modules
    assert "ipv2.api" in _modules_after("import ipv2\nipv2.read_scan")


def test_public_names_are_those_of_the_api():
    assert set(ipv2.__all__) <= set(dir(ipv2))
    for name in ipv2.__all__:
        assert getattr(ipv2, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'simulate'"):
        ipv2.simulate  # noqa: B018


def test_a_scan_says_what_it_is(files):
    scan = ipv2.read_scan(files / "in/a")
    assert scan.name == "a" and scan.spacing_mm == (5.0, MM, MM)
    assert scan.hu.dtype == np.float32 and scan.shape == (COUNT, SIZE, SIZE)
    assert np.all(scan.hu[:, OUTSIDE] == -1024)
    assert np.all(scan.padding_hu[:, OUTSIDE] == -3024)
    assert np.all(np.isnan(scan.padding_hu[:, ~OUTSIDE]))
    assert repr(scan).startswith(
        "Scan('a': 3 x 64 x 64, spacing 5 x 6.25 x 6.25 mm, HU"
    )
    np.testing.assert_array_equal(scan.hu, read_volume(files / "in/a").hu)
    part = scan.take([1, 2])
    assert part.shape == part.padding_hu.shape == (2, SIZE, SIZE)


@pytest.mark.slow
def test_a_simulated_scan_is_the_task_s(files, tmp_path):
    config = simulate_recipe.get_config()
    config.data.input, config.output = str(files / "in"), str(tmp_path / "task")
    config.dose, config.seed, config.noise.views = 0.1, 3, 24
    simulate(config, tmp_path / "work")
    scan = ipv2.read_scan(files / "in/a")
    low = ipv2.simulate_low_dose(scan, dose=0.1, seed=3, views=24)
    assert np.std(low.hu - scan.hu) > 5
    ipv2.write_scan(tmp_path / "api", low)
    same_series(tmp_path / "task/a", tmp_path / "api")
    tags = [
        pydicom.dcmread(folder / "IM1")
        for folder in (tmp_path / "task/a", tmp_path / "api")
    ]
    for key in ("SeriesDescription", "DerivationDescription", "XRayTubeCurrent"):
        assert tags[0][key].value == tags[1][key].value
    assert tags[1].XRayTubeCurrent == 20


@pytest.mark.slow
def test_a_simulated_array_is_the_scan_of_that_name(files):
    scan = ipv2.read_scan(files / "in/a")
    options = {"dose": 0.1, "views": 24}
    low = ipv2.simulate_low_dose(scan, **options)
    array = ipv2.simulate_low_dose(scan.hu, spacing_mm=MM, name="a", **options)
    assert isinstance(array, np.ndarray) and array.dtype == np.float32
    # Without the file's marks, padding is what is -1024 HU from the border on.
    np.testing.assert_array_equal(array[:, ~OUTSIDE], low.hu[:, ~OUTSIDE])
    other = ipv2.simulate_low_dose(scan, name="array", **options)
    assert np.any(other.hu != low.hu) and other.name == "a"
    array = ipv2.simulate_low_dose(scan.hu, spacing_mm=MM, **options)
    np.testing.assert_array_equal(array[:, ~OUTSIDE], other.hu[:, ~OUTSIDE])
    on_device = ipv2.simulate_low_dose(
        jnp.asarray(scan.hu[0]), spacing_mm=(MM, MM), **options
    )
    assert isinstance(on_device, jax.Array) and on_device.shape == (SIZE, SIZE)


@pytest.mark.slow
def test_a_denoised_scan_is_the_task_s(files, net, tmp_path):
    denoise(config_of(files / "in", tmp_path / "task"), files / "run")
    scan = ipv2.read_scan(files / "in/a")
    clean = net.denoise(scan, batch_size=2)
    assert np.std(clean.hu - scan.hu) > 10 and np.all(clean.hu[:, OUTSIDE] == -1024)
    ipv2.write_scan(tmp_path / "api", clean, like=scan)
    same_series(tmp_path / "task/a", tmp_path / "api")
    assert pixels(tmp_path / "api")["IM0"][0, 0] == -3024
    tags = [
        pydicom.dcmread(folder / "IM1")
        for folder in (tmp_path / "task/a", tmp_path / "api")
    ]
    for key in ("SeriesDescription", "DerivationDescription"):
        assert tags[0][key].value == tags[1][key].value
    array = net.denoise(scan.hu[1], batch_size=2)
    inside = ~OUTSIDE
    # One slice is another batch, in which float32 sums go in another order.
    np.testing.assert_allclose(array[inside], clean.hu[1][inside], rtol=0, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_purified_pair_is_the_task_s(files, tmp_path, version):
    config = ipv2_redcnn.get_config("smoke")
    config.data.root, config.purify.output = str(files / "pair"), str(tmp_path / "task")
    config.purify.version, config.seed = version, 5
    config.evaluate.batch_size, config.noise.views = 4, 24
    purify_folder(config, tmp_path / "work")
    low, normal = (ipv2.read_scan(files / "pair" / side / "a") for side in ("lq", "gt"))
    dose = ipv2.DoseParams(dose=config.noise.dose, views=24)
    pair = ipv2.purify(low, normal, version=version, seed=5, dose=dose)
    for side in pair._fields:
        scan = getattr(pair, side)
        ipv2.write_scan(tmp_path / side, scan)
        same_series(tmp_path / "task" / side / "a", tmp_path / side)
    options = {"seed": 5, "dose": dose, "spacing_mm": MM, "name": "a"}
    arrays = ipv2.purify(low.hu, normal.hu, version=version, volume=True, **options)
    assert arrays.lung_mask.dtype == np.bool_ and arrays.lung_mask.any()
    np.testing.assert_array_equal(arrays.lq_bar, pair.lq_bar.hu)
    np.testing.assert_array_equal(arrays.lung_mask, pair.lung_mask.hu > 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"array: a single slice; volume=True needs slices with positions"),
        ({"variant": "reference"}, "volume: got True, accepted: False with variant="),
    ],
)
def test_arrays_that_are_no_volume_are_refused(options, said):
    image = chest(1)[:1]
    with pytest.raises(ValueError, match=said):
        ipv2.purify(image, image, volume=True, add_noise="none", **options)


_EVENTS = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: _EVENTS.append(event)
)


def _compilations(call):
    _EVENTS.clear()
    call()
    return sum("backend_compile" in event for event in _EVENTS)


@pytest.mark.slow
def test_a_second_call_compiles_nothing(net):
    """Not for other values, seeds, doses and names, nor another number of slices."""
    low, normal = chest(1, shift=0.03, noise_hu=60), chest(2)

    def calls(seed, dose, count):
        options = {"spacing_mm": MM, "seed": seed, "name": f"scan {seed}"}
        ipv2.simulate_low_dose(normal[:count] + seed, dose=dose, views=24, **options)
        ipv2.purify(low[:count], normal[:count] + seed, **options)
        net.denoise(low[:count] + seed)

    assert _compilations(lambda: calls(0, 0.1, 2)) > 0
    assert _compilations(lambda: calls(1, 0.2, 3)) == 0


@pytest.mark.slow
def test_chained_results_say_all_that_was_done(files, net):
    low = ipv2.simulate_low_dose(ipv2.read_scan(files / "in/a"), dose=0.1, views=24)
    clean = net.denoise(low)
    assert clean.series_description.startswith("thin (denoised: cnn10 ")
    first, second = clean.derivation_description.split("; ipv2 denoising 1")
    assert first == low.derivation_description and "network cnn10" in second


def test_writing_replaces_nothing_unasked_and_nothing_is_left(files, tmp_path):
    scan = ipv2.read_scan(files / "in/a")
    path = ipv2.write_scan(tmp_path / "out/a.nii.gz", scan.hu + 1.0, like=scan)
    with pytest.raises(ipv2.UserError, match="exists already"):
        ipv2.write_scan(path, scan)
    np.testing.assert_array_equal(ipv2.read_scan(path).hu, scan.hu + 1)
    ipv2.write_scan(path, scan.hu, like=scan, overwrite=True)
    again = ipv2.read_scan(path)
    np.testing.assert_array_equal(again.hu, scan.hu)
    assert again.spacing_mm == scan.spacing_mm
    with pytest.raises(ipv2.UserError, match="HU are stored as int16"):
        ipv2.write_scan(tmp_path / "out/b", scan.hu + 1e6, like=scan)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_a_mask_is_written_as_one(files, tmp_path):
    scan = ipv2.read_scan(files / "in/a")
    path = ipv2.write_scan(tmp_path / "mask.mha", scan.hu < -500, like=scan)
    mask = ipv2.read_scan(path, trust_hu=True)
    np.testing.assert_array_equal(mask.hu, scan.hu < -500)


def test_a_scan_of_an_array_needs_no_file(tmp_path):
    scan = ipv2.Scan(hu=chest(), spacing_mm=(5.0, MM, MM), name="mine")
    again = ipv2.read_scan(ipv2.write_scan(tmp_path / "mine.nrrd", scan))
    np.testing.assert_array_equal(again.hu, scan.hu)
    assert again.spacing_mm == scan.spacing_mm and not again.integer


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (np.zeros((2, 2, 64, 64)), {}, r"image: got shape .*accepted: \(rows, columns"),
        (np.zeros((0, 64, 64)), {}, "image: got shape"),
        (np.zeros((64, 64), np.uint8), {}, "image: got uint8, accepted: HU as floats"),
        (np.arange(256.0).reshape(16, 16), {}, "ranges from 0 to 255: grey levels"),
        (np.full((16, 16), np.nan), {}, "not finite"),
        (chest(), {"spacing_mm": -1.0}, "spacing_mm: got -1.0, accepted: mm above 0"),
        (chest(), {"spacing_mm": (1.0, 1.0, 1.0, 1.0)}, "spacing_mm: got "),
    ],
)
def test_what_is_no_image_in_hu_is_told(image, options, said):
    with pytest.raises(ValueError, match=said):
        take_image(image, **options)


def test_what_is_no_image_at_all_is_told():
    with pytest.raises(TypeError, match="image: got list, accepted: a scan"):
        take_image([[0.0]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dose": 2.0, "spacing_mm": MM}, r"dose = 2.0; a fraction of normal dose"),
        ({"dose": 0.1}, "spacing_mm: missing, accepted: the size of a pixel in mm"),
        ({"dose": 0.1, "spacing_mm": (1.0, 2.0)}, "pixels of 1 x 2 mm"),
        (
            {"dose": 0.1, "spacing_mm": MM, "seed": -1},
            "seed: got -1, accepted: a whole",
        ),
        ({"dose": 0.1, "spacing_mm": MM, "photons": 0}, "photons = 0; a finite count"),
    ],
)
def test_a_wrong_simulation_is_told(options, said):
    with pytest.raises(ValueError, match=said):
        ipv2.simulate_low_dose(chest(), **options)


def test_unknown_options_are_told():
    with pytest.raises(TypeError, match=r"takes no fotons; accepted: .*photons"):
        ipv2.simulate_low_dose(chest(), dose=0.1, spacing_mm=MM, fotons=1)
    with pytest.raises(TypeError, match=r"purify takes no units; accepted: .*variant"):
        ipv2.purify(chest(), chest(), units="grey")


def test_wrong_pairs_are_told(files):
    scan = ipv2.read_scan(files / "in/a")
    low = chest(1)
    with pytest.raises(ValueError, match="low and normal must have one shape"):
        ipv2.purify(low, low[:2], spacing_mm=MM)
    with pytest.raises(TypeError, match="got ndarray and Scan, accepted: two scans"):
        ipv2.purify(low, scan)
    with pytest.raises(ValueError, match="spacing_mm: missing"):
        ipv2.purify(low, low)
    with pytest.raises(ValueError, match="version must be one of 'v1', 'v2'"):
        ipv2.purify(low, low, version="v3")
    with pytest.raises(ValueError, match="match: got 'name', accepted: 'position'"):
        ipv2.purify(scan, scan, match="name")


def test_a_scan_s_own_spacing_counts(files):
    scan = ipv2.read_scan(files / "in/a")
    with pytest.raises(ValueError, match=r"spacing_mm: got 1.0 with a scan"):
        ipv2.simulate_low_dose(scan, dose=0.1, spacing_mm=1.0)


def test_wrong_denoising_is_told(net):
    with pytest.raises(ValueError, match="batch_size: got 0, accepted: a whole number"):
        net.denoise(chest(), batch_size=0)
    with pytest.raises(ValueError, match="tile: got 14, accepted: at least 15"):
        net.denoise(chest(), tile=14)
    with pytest.raises(
        ValueError, match="array: got slices of 8 x 8 pixels; accepted: at least 16"
    ):
        net.denoise(chest()[:, :8, :8])
    with pytest.raises(ValueError, match="cnn10 is no flow"):
        net.with_sampling(steps=2)


def test_wrong_files_are_told(files, tmp_path):
    scan = ipv2.read_scan(files / "in/a")
    with pytest.raises(ipv2.UserError, match="no such file or folder"):
        ipv2.read_scan(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"window: got .*width above 0"):
        ipv2.read_scan(files / "in/a", window=(0.0, 0.0))
    with pytest.raises(ValueError, match="gaps: got 'maybe', accepted"):
        ipv2.read_scan(files / "in/a", gaps="maybe")
    with pytest.raises(ipv2.UserError, match="no exported network here"):
        ipv2.load_denoiser(tmp_path)
    with pytest.raises(ValueError, match="like: missing, accepted: the scan whose"):
        ipv2.write_scan(tmp_path / "a.nii", scan.hu)
    with pytest.raises(ValueError, match="image and like must have one shape"):
        ipv2.write_scan(tmp_path / "a.nii", scan.hu[:2], like=scan)
    assert not list(tmp_path.iterdir())


def test_advice_names_arguments_not_the_command_line_s_keys(files, tmp_path):
    write_series(tmp_path / "two", chest())
    for path in (tmp_path / "two").iterdir():
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = "1.2.4"
        save(data, tmp_path / "two" / f"other_{path.name}")
    with pytest.raises(ipv2.UserError, match=r"[^.]series=\.\.\.") as error:
        ipv2.read_scan(tmp_path / "two")
    assert "config" not in str(error.value)
    assert ipv2.read_scan(tmp_path / "two", series="1.2.4").shape[0] == COUNT
    scan = ipv2.read_scan(files / "in/a")
    far = scan.positions_mm + np.asarray([0.0, 0.0, 500.0])
    away = dataclasses.replace(scan, positions_mm=far)
    with pytest.raises(ipv2.UserError, match="pair by index: match=index"):
        ipv2.purify(scan, away)


@pytest.mark.slow
def test_a_flow_can_be_followed_in_other_steps(tmp_path):
    export_network(tmp_path, name="fm", width=8, multipliers=(1,))
    net = ipv2.load_denoiser(tmp_path / "export")
    other = net.with_sampling(sampler="heun", steps=1)
    assert (other.spec.sampling.sampler, other.spec.sampling.steps) == ("heun", 1)
    assert "euler in 8 steps" in repr(net) and "heun in 1 steps" in repr(other)
    with pytest.raises(ValueError, match="steps: got 0, accepted: at least 1"):
        net.with_sampling(steps=0)

"""Tasks export and denoise with ONNX files: the same files as JAX writes, to 1 HU."""

import hashlib
import json

import numpy as np
import pydicom
import pytest

import ipv2
from common.errors import UserError
from configs import denoise as recipe
from configs import ipv2_redcnn
from ipv2.ct_io import read_volume
from ipv2.tasks.denoise import denoise
from ipv2.tasks.export import export
from tests.ipv2.ct_files import make_slice, save
from tests.ipv2.exports import config_of, export_network
from tests.oracles.thorax import thorax

SIZE, COUNT = 64, 3
# Results of these networks differ by up to 0.0005 HU (measured). So one pixel of 1,000
# at most is that near to a half, and may be rounded to another whole HU.
MOST_UNEQUAL = 0.001


def write_series(folder, size=SIZE):
    """A DICOM series of a chest with noise, unsigned with 12 bits."""
    noise = np.random.default_rng(0).normal(0, 40, (COUNT, size, size))
    for index, image in enumerate(np.rint(thorax(size).hu + noise)):
        stored = np.clip(image + 1024, 0, 4095).astype(np.int32)
        position = (-5.0, 7.0, 5.0 * index)
        save(
            make_slice(stored, position=position, instance=index + 1),
            folder / f"IM{index}",
        )


def denoised(source, output, model, **changes):
    """Runs task denoise; returns the HU that it wrote."""
    config = recipe.get_config()
    config.denoise.input, config.denoise.output = str(source), str(output)
    config.denoise.model = str(model)
    config.update_from_flattened_dict(changes)
    denoise(config, output.parent / "run")
    return read_volume(output / source.name).hu


def compare(jax, onnx, source):
    unequal = jax != onnx
    print(f"{unequal.sum()} of {unequal.size} pixels differ")
    assert np.std(jax - source) > 5  # the network does something
    assert np.abs(jax - onnx).max() <= 1
    assert unequal.mean() <= MOST_UNEQUAL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose network was exported as ONNX, and a series."""
    folder = tmp_path_factory.mktemp("run")
    export_network(folder / "run", name="dncnn", width=8, depth=4, channels=3)
    export(ipv2_redcnn.get_config(), folder / "run")
    write_series(folder / "in/series")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("tile", [-1, 48])
def test_the_result_is_that_of_jax_to_rounding(run, tmp_path, tile):
    tiles = {"denoise.tile": tile}
    source = run / "in/series"
    jax = denoised(source, tmp_path / "jax", run / "run", **tiles)
    file = run / "run/export/model.onnx"
    onnx = denoised(source, tmp_path / "onnx", file, **tiles)
    compare(jax, onnx, read_volume(source).hu)


@pytest.mark.slow
def test_headers_and_records_name_the_file_by_its_hash(run, tmp_path):
    file = run / "run/export/model.onnx"
    denoised(run / "in/series", tmp_path / "out", file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    header = pydicom.dcmread(tmp_path / "out/series/IM0")
    assert f"denoised: dncnn {sha256[:8]}" in header.SeriesDescription
    assert f"ONNX file of SHA-256 {sha256}" in header.DerivationDescription
    assert "in onnxruntime" in header.DerivationDescription
    (record,) = (tmp_path / "out").glob("*.json")
    asked = json.loads(record.read_text())["asked"]
    assert asked["network"]["sha256"] == sha256
    assert asked["network"]["runtime"] == "onnxruntime"


@pytest.mark.slow
def test_the_network_that_ships_gives_the_same(tmp_path):
    write_series(tmp_path / "in", 128)
    net = ipv2.load_denoiser()
    net.save_onnx(tmp_path / "unet.onnx")
    jax = denoised(tmp_path / "in", tmp_path / "jax", "shipped")
    onnx = denoised(tmp_path / "in", tmp_path / "onnx", tmp_path / "unet.onnx")
    compare(jax, onnx, read_volume(tmp_path / "in").hu)


@pytest.mark.slow
def test_the_export_beside_the_file_still_loads(run):
    assert ipv2.load_denoiser(run / "run").spec.name == "dncnn"


def test_a_runtime_of_onnx_files_is_refused_for_an_export(run, tmp_path):
    with pytest.raises(UserError, match=r"runtime: got 'openvino', .*run' is none"):
        denoised(
            run / "in/series",
            tmp_path / "out",
            run / "run",
            **{"denoise.runtime": "openvino"},
        )


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"has no export of a training run .*Train firs"
    ):
        export(ipv2_redcnn.get_config(), tmp_path)


@pytest.mark.slow
def test_a_flow_s_run_is_refused_and_leaves_no_file(tmp_path):
    export_network(tmp_path, name="fm", width=8, multipliers=(1,))
    with pytest.raises(UserError, match="fm cannot be exported as ONNX: it is a flow"):
        export(ipv2_redcnn.get_config(), tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_damaged_file_stops_the_task(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    write_series(tmp_path / "in")
    config = config_of(tmp_path / "in", tmp_path / "out")
    config.denoise.model = str(tmp_path / "bad.onnx")
    with pytest.raises(UserError, match=r"bad.onnx: onnxruntime cannot read it"):
        denoise(config, tmp_path / "run")
    assert not (tmp_path / "out").exists()

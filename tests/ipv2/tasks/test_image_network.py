"""A denoiser as another method sees it: images, judgement, and its integer file."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.denoisers.bits import NetworkBits, convolutions_of
from acq.denoisers.ranges import ranges_of_images
from acq.denoisers.rounding import apply_rounded, roundings_of, settled
from common.errors import UserError
from common.image_network import Quantized
from ipv2.inference.onnx_denoiser import load_onnx
from ipv2.inference.onnx_runtimes import RUNTIMES
from ipv2.tasks.image_network import open_denoiser, untrained_denoiser
from tests.ipv2.exports import export_network

DATA = {"embedded": ("phantom",), "size": 64, "limit": 1}
WORDS = {
    "weight_bits": 6,
    "activation_bits": 5,
    "ranges_in_words": "drawn thoraxes without noise",
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return untrained_denoiser("", cache=str(tmp_path_factory.mktemp("data")), **DATA)


def test_an_export_must_be_given(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.export: got '', .*ipv2_batch_norm"):
        open_denoiser("")
    with pytest.raises(UserError, match="no exported network here"):
        open_denoiser(str(tmp_path))


def test_what_the_other_method_may_know(network):
    assert (network.low, network.high, network.multiple) == (-1.0, 2.0, 4)
    assert network.has_statistics and network.channels == 1
    assert list(network.kinds) == ["phantom", "noisy_phantom"]
    assert network.module.axis_name is None


@pytest.mark.slow
def test_images_are_patches_in_the_network_s_unit(network):
    clean, noisy = (network.images(kind, 3, 32, 0) for kind in network.kinds)
    assert clean.shape == noisy.shape == (3, 32, 32, 1)
    assert -1.1 < clean.min() < -0.9 and clean.max() < 2.5
    assert 0.005 < np.std(noisy - clean) < 0.3
    np.testing.assert_array_equal(network.images("phantom", 3, 32, 0), clean)
    with pytest.raises(ValueError, match="no kind of images 'other', accepted: ph"):
        network.images("other", 1, 8, 0)


@pytest.mark.slow
def test_the_judge_compares_with_truth_and_float_network(network):
    floats = jax.jit(lambda x: network.module.apply(network.variables, x))
    brighter = lambda x: floats(x) + 0.01  # noqa: E731
    found = network.judge({"float": floats, "brighter": brighter})["phantom"]
    assert set(found) == {"input", "float", "brighter"}
    assert found["brighter"]["rmse_to_float_hu"] == pytest.approx(10, rel=1e-3)
    for tissue in ("air", "lung", "soft"):
        key = f"bias_{tissue}_hu"
        moved = found["brighter"][key] - found["float"][key]
        assert moved == pytest.approx(10, rel=1e-3)
    assert found["float"]["psnr_full_db"] > 20


@pytest.mark.slow
def test_the_slices_to_view_are_those_that_were_judged(network):
    floats = jax.jit(lambda x: network.module.apply(network.variables, x))
    brighter = lambda x: floats(x) + 0.01  # noqa: E731
    (found,) = network.views({"float": floats, "brighter": brighter})
    assert found.name == "phantom, phantom-000003, slice 0"
    assert list(found.images) == ["input", "float", "brighter", "truth"]
    assert found.reference == "float" and found.pixel_mm == pytest.approx(400 / 64)
    apart = found.images["brighter"].astype(int) - found.images["float"]
    assert abs(apart - 10).max() <= 1  # both are rounded to whole HU
    error = found.images["input"].astype(float) - found.images["truth"]
    psnr = 20 * np.log10(4096 / np.sqrt(np.mean(np.square(error))))
    judged = network.judge({"float": floats})["phantom"]["input"]
    assert psnr == pytest.approx(judged["psnr_full_db"], abs=0.01)
    np.testing.assert_allclose(network.to_hu(np.float32(-0.6)), -600, rtol=1e-6)


def write_integers(network, variables, path):
    """Writes a file; returns images, and our result with the same integers."""
    convolutions = convolutions_of(network, 32)
    bits = NetworkBits(
        weight_bits=6,
        activation_bits=5,
        first_last_bits=8,
        names=tuple(found.name for found in convolutions),
    )
    images = jnp.asarray(network.images("phantom", 2, 32, 0))
    ranges = ranges_of_images(network, bits, [images])
    variables = settled({**variables, "ranges": ranges}, bits, convolutions)
    result, _ = jax.jit(lambda v, x: apply_rounded(network.module, v, x, bits))(
        variables, images
    )
    del variables["ranges"]
    network.write(Quantized(variables, roundings_of(ranges, bits), WORDS), path)
    return images, result


def in_hu(images):
    return np.asarray(images).transpose(0, 3, 1, 2) * 1000


@pytest.mark.slow
def test_its_integer_file_denoises_hu_as_our_rounded_network(network, tmp_path):
    images, want = write_integers(network, network.variables, tmp_path / "model.onnx")
    denoiser = load_onnx(tmp_path / "model.onnx")
    found = denoiser.runtime.run(in_hu(images))
    # Sums in another order; a value at the middle between two codes may go either way.
    assert np.mean(np.abs(found[:, 0] - 1000 * want[..., 0]) > 0.01) < 0.01
    network.write(None, tmp_path / "float.onnx")
    floats = load_onnx(tmp_path / "float.onnx")
    found = floats.runtime.run(in_hu(images))
    want = network.module.apply(network.variables, images)
    np.testing.assert_allclose(found[:, 0], 1000 * want[..., 0], atol=0.02)
    said = denoiser.describe()
    assert "weights of 6 and activations of 5 bits, ranges from drawn thoraxes" in said


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("openvino"), reason="no openvino")
def test_openvino_computes_the_same_integers(tmp_path):
    """It forgot biases that were added after pixels were rearranged."""
    export_network(tmp_path / "run", name="unet", width=4, levels=1)
    network = open_denoiser(str(tmp_path / "run"), cache=str(tmp_path), **DATA)

    def biased(path, leaf):
        is_bias = path[-1].key == "bias"
        return leaf + np.float32(np.linspace(-1, 1, leaf.size)) if is_bias else leaf

    params = jax.tree_util.tree_map_with_path(biased, network.variables["params"])
    path = tmp_path / "model.onnx"
    images, _ = write_integers(network, {**network.variables, "params": params}, path)
    one, two = (load_onnx(path, name).runtime.run(in_hu(images)) for name in RUNTIMES)
    assert np.std(one - in_hu(images)) > 1
    # Sums in another order, which may give single pixels another code. HU:
    assert np.mean(np.abs(one - two)) < 0.01

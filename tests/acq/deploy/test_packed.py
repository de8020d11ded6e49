import json

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from acq.deploy import packed
from acq.deploy.integer_ready import make_integer_ready
from acq.deploy.packed import load_packed, pack, unpack
from acq.layers.float import FloatLayers
from common.errors import UserError
from tests.acq.deploy.small_networks import (
    classifier_of,
    images,
    quantized,
    quantized_of,
    ready,
)
from tests.acq.models.small import SMALL
from tests.acq.quantized import create


def float_network(name):
    return create(name, FloatLayers())


def flat(small):
    return {k: np.asarray(v) for k, v in flatten_dict(small.variables, sep="/").items()}


def written(small, folder):
    path = folder / "model.packed.safetensors"
    small.save_packed(path)
    with safe_open(path, "np") as file:
        return path, json.loads(file.metadata()["acq"])


@pytest.mark.parametrize(
    ("codes", "bits", "content"),
    [
        ([1, 2, 3, 0], 2, [0b00_11_10_01]),
        ([1, 2, 3, 0, 3], 2, [0b00_11_10_01, 0b11]),
        ([5, 2, 7], 3, [0b11_010_101, 0b1]),
        ([15, 1], 4, [0b0001_1111]),
        ([31, 1, 2], 5, [0b001_11111, 0b00010_00]),
        ([255, 7], 8, [255, 7]),
        ([], 3, []),
    ],
)
def test_bits_follow_each_other_lowest_first(codes, bits, content):
    codes = np.array(codes, np.uint8)
    found = pack(codes, bits)
    assert found.dtype == np.uint8
    assert list(found) == content
    np.testing.assert_array_equal(unpack(found, bits, len(codes)), codes)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [1, 15, 16, 17, 40, 41])
def test_unpacking_gives_the_codes_over_several_blocks(bits, count, monkeypatch):
    monkeypatch.setattr(packed, "_BLOCK", 16)
    rng = np.random.default_rng(count)
    codes = rng.integers(0, 2**bits, count).astype(np.uint8)
    found = pack(codes, bits)
    assert len(found) == -(-count * bits // 8)
    np.testing.assert_array_equal(unpack(found, bits, count), codes)


def test_codes_of_too_many_bits_are_refused():
    with pytest.raises(ValueError, match="8 does not fit into 3 bits"):
        pack(np.array([8], np.uint8), 3)


@pytest.mark.parametrize(
    ("name", "bits", "is_ready"),
    [
        ("own", 2, True),
        ("own", 3, True),
        ("own", 4, False),
        *(
            pytest.param(*case, marks=(pytest.mark.slow, pytest.mark.long))
            for case in (
                ("own", 5, False),
                ("own", 6, True),
                ("own", 7, False),
                ("own", 8, True),
                *((name, 3, True) for name in SMALL if name != "basic"),
            )
        ),
        pytest.param("own", 8, False, marks=pytest.mark.slow),  # uint8, zero points
        pytest.param("basic", 3, True, marks=pytest.mark.slow),
    ],
)
def test_a_loaded_network_is_bit_for_bit_the_one_written(
    name, bits, is_ready, tmp_path
):
    small = ready(name, bits).network if is_ready else quantized(name, bits)
    path, _ = written(small, tmp_path)
    loaded = load_packed(path, float_network(name))
    before, after = flat(small), flat(loaded)
    assert before.keys() == after.keys()
    for key, values in before.items():
        assert after[key].dtype == values.dtype, key
        np.testing.assert_array_equal(after[key], values, err_msg=key)
    assert loaded.network == small.network
    # JSON has lists in place of tuples.
    assert loaded.manifest == json.loads(json.dumps(small.manifest))
    assert loaded.record == small.record
    batch = images(2)
    np.testing.assert_array_equal(loaded(batch), small(batch))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_take_their_bits_and_no_more(bits, tmp_path):
    small = ready("own", bits).network
    path, _ = written(small, tmp_path)
    arrays = load_file(path)
    for name, codes in flat(small).items():
        if name.startswith("integers/") and name.endswith("/kernel"):
            layer = name.removeprefix("integers/").removesuffix("/kernel")
            assert arrays[f"packed/{layer}/kernel"].nbytes == -(-codes.size * bits // 8)
            assert name not in arrays


def test_layers_with_bits_of_their_own_are_packed_in_these(tmp_path):
    own = (("conv0", 8), ("head", 6))
    small = make_integer_ready(quantized("own", 3, own=own)).network
    path, description = written(small, tmp_path)
    bits = {layer: form["bits"] for layer, form in description["packed"].items()}
    assert bits == {"conv0": 8, "conv1": 3, "conv2": 3, "head": 6}
    loaded = load_packed(path, float_network("own"))
    for key, values in flat(small).items():
        np.testing.assert_array_equal(flat(loaded)[key], values, err_msg=key)


def test_a_network_of_a_known_name_needs_no_module(tmp_path):
    name = "tests.acq.own_network:PlainNet"
    small = quantized_of(classifier_of(float_network("own"), name), 4)
    path, _ = written(small, tmp_path)
    with pytest.raises(UserError, match=r"are not those of .*PlainNet"):
        load_packed(path)  # the class has another width by default
    assert load_packed(path, float_network("own")).record.name == name


def rewritten(path, description, **arrays):
    """Writes the file again, with another description or other arrays."""
    save_file({**load_file(path), **arrays}, path, {"acq": json.dumps(description)})


def test_arrays_that_do_not_have_the_hash_are_refused(tmp_path):
    path, description = written(ready("own", 3).network, tmp_path)
    kernel = load_file(path)["packed/conv1/kernel"].copy()
    kernel[0] ^= 1
    rewritten(path, description, **{"packed/conv1/kernel": kernel})
    with pytest.raises(UserError, match=r"damaged: its arrays have SHA-256 .*it says"):
        load_packed(path, float_network("own"))


def test_files_of_others_are_refused(tmp_path):
    path, description = written(ready("own", 3).network, tmp_path)
    with pytest.raises(UserError, match=r"none\.safetensors: no such file"):
        load_packed(tmp_path / "none.safetensors")
    for count in (0, 100):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(path.read_bytes()[:count])
        with pytest.raises(UserError, match=r"cut.*: not readable as safetensors"):
            load_packed(cut)
    for changed, found in (({**description, "format": "2"}, "'2'"), ({}, "None")):
        rewritten(path, changed)
        with pytest.raises(UserError, match=f"format {found}, accepted: 'packed-1'"):
            load_packed(path)


def test_a_file_of_another_kind_of_network_is_refused(tmp_path):
    path, description = written(ready("own", 3).network, tmp_path)
    rewritten(path, {**description, "manifest": {"kind": "denoiser"}})
    with pytest.raises(UserError, match="not the manifest of a quantized network"):
        load_packed(path, float_network("own"))


def test_equal_networks_give_equal_files(tmp_path):
    small = ready("own", 3).network
    contents = {written(small, tmp_path)[0].read_bytes() for _ in range(3)}
    assert len(contents) == 1


def test_a_network_of_other_shapes_is_refused_with_the_array(tmp_path):
    path, _ = written(ready("own", 3).network, tmp_path)
    with pytest.raises(UserError, match=r"batch_stats/.*Give the network"):
        load_packed(path, float_network("cifar"))

import io
import json
import pathlib
import re
import struct
import subprocess
import sys
import zipfile

import flax
import flax.serialization
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from common.errors import UserError
from common.weights import files
from common.weights.files import read_weights

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.running_var": np.array([0.5, 2.0]),
    "bn.num_batches_tracked": np.array(7),
    "half": np.array([1.5, -2.0], np.float16),
}


def _check(found):
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        is_float = array.dtype.kind == "f"
        assert found[name].dtype == (np.float32 if is_float else array.dtype)
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_read_whatever_its_suffix(tmp_path, save):
    arrays = {**ARRAYS, "conv.weight": np.asfortranarray(ARRAYS["conv.weight"])}
    arrays["half"] = arrays["half"].astype(">f2")
    content = io.BytesIO()
    save(content, **arrays)
    (tmp_path / "w.bin").write_bytes(content.getvalue())
    _check(read_weights(tmp_path / "w.bin"))


def test_safetensors_are_read_whatever_their_suffix(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "w", {"format": "pt"})
    _check(read_weights(tmp_path / "w"))


def _safetensors(dtype, shape, numbers, length=0):
    """A file of one tensor; its header is filled up to `length` bytes."""
    header = {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(numbers)]}}
    text = json.dumps(header).encode().ljust(length)
    return struct.pack("<Q", len(text)) + text + numbers


def test_bfloat16_becomes_float32(tmp_path):
    numbers = np.array([1.5, -3e38, 2**-100], ml_dtypes.bfloat16)
    path = tmp_path / "w.safetensors"
    path.write_bytes(_safetensors("BF16", [3], numbers.tobytes()))
    found = read_weights(path)["w"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, numbers.astype(np.float32))


@pytest.mark.parametrize("first", [b"\x80", b"\x80\x02", b"<", b"\x89"])
def test_safetensors_may_begin_with_another_format_s_bytes(tmp_path, first):
    length = int.from_bytes(first, "little") + (1 << 8 * len(first))
    content = _safetensors("F32", [2], np.float32([1, 2]).tobytes(), length)
    assert content.startswith(first)
    (tmp_path / "w").write_bytes(content)
    np.testing.assert_array_equal(read_weights(tmp_path / "w")["w"], [1, 2])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a file of weights: empty: copy or download it again"),
        (b"hello, weights", r"begins with b'hello, w'"),
        (b"\n<!DOCTYPE html>", "a web page, saved instead of the file"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x89HDF\r\n", "HDF5 .*np.savez"),
        (b"\x1f\x8b\x08", "packed with gzip: unpack it"),
        (b"BZh91AY", "packed with bzip2: unpack it"),
        (b"\xfd7zXZ\x00", "packed with xz"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd"),
        (bytes(257) + b"ustar", "a tar archive: unpack it"),
        (b"GGUF\x03", "GGUF"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\x08\x07\x12\x07pytorch", "ONNX, .*safetensors.torch.save_file"),
        (b"\x93NUMPY\x01\x00", r"one array of NumPy .*np.savez"),
        (b"\x82\xa6params\x81", r"msgpack \(Flax\): .*msgpack_restore"),
        (b'{"architectures": []}', "JSON, which describes a network"),
        (b"{damaged", "JSON, which describes a network"),
        (b"PK\x05\x06" + bytes(18), "it holds nothing"),
        (b"PK\x03\x04 and no more", "damaged or incomplete"),
        (b"\x80", "damaged"),
        (_safetensors("F32", [2], bytes(8))[:-1], "damaged or incomplete"),
        (_safetensors("F32", [3], bytes(8)), "damaged or incomplete"),
        (_safetensors("F8_E5M2", [8], bytes(8)), "w is of type F8_E5M2"),
        (struct.pack("<Q", 2**60) + b"{}", "damaged or incomplete"),
        (struct.pack("<Q", 2) + b"{x", "damaged or incomplete"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_weights_is_told_in_one_message(tmp_path, content, said):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"w\.safetensors: .*{said}"):
        read_weights(path)


def test_no_message_of_ours_is_called_damage(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert "damaged" not in str(error.value)
    assert str(error.value).count("Accepted") == 1


def test_an_index_of_shards_says_how_to_merge_them(tmp_path):
    for number in (1, 2):
        shard = tmp_path / f"model-0000{number}-of-00002.safetensors"
        safetensors.numpy.save_file({f"w{number}": np.ones(2, np.float32)}, shard)
    path = tmp_path / "model.safetensors.index.json"
    places = {f"w{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    with pytest.raises(UserError, match="the index of weights in 2 files") as error:
        read_weights(path)
    command = re.search('python -c "([^"]*)"', str(error.value))
    assert command is not None
    subprocess.run([sys.executable, "-c", command[1]], cwd=tmp_path, check=True)
    assert set(read_weights(tmp_path / "merged.safetensors")) == {"w1", "w2"}


def test_the_advice_for_msgpack_gives_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = {"params": {"conv": {"kernel": np.ones((1, 1, 2, 3), np.float32)}}}
    (tmp_path / "w.msgpack").write_bytes(
        flax.serialization.msgpack_serialize(variables)
    )
    with pytest.raises(UserError, match="msgpack") as error:
        read_weights(tmp_path / "w.msgpack")
    line = re.search(r"in Flax: (.*)\. Accepted", str(error.value))
    assert line is not None
    exec(line[1], {"np": np, "flax": flax, "pathlib": pathlib, "FILE": "w.msgpack"})
    assert set(read_weights(tmp_path / "weights.npz")) == {"params/conv/kernel"}


def test_json_beside_weights_names_them(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"give model\.safetensors, beside it"):
        read_weights(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["word/document.xml"], "it holds word/document.xml: unpack it"),
        (["a", "b", "c", "d", "e"], "a, b, c, d and 1 more"),
        (["config.json", "model.weights.h5"], "a model of Keras .*np.savez"),
    ],
)
def test_other_zips_are_told(tmp_path, names, said):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in names:
            archive.writestr(name, "")
    with pytest.raises(UserError, match=f"not a file of weights: .*{said}"):
        read_weights(tmp_path / "w.pt")


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothing: cannot be read \(No such file"):
        read_weights(tmp_path / "nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path)


def _npz(entry, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("w.npy", entry)
    return file.getvalue()


def _npy(shape, descr="<f4", numbers=b""):
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + numbers


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (_npy((2,), numbers=bytes(7)), "not as long as its shape"),
        (_npy((2**40, 2**20)), "not as long as its shape"),
        (_npy((-1,)), "not as long as its shape"),
        (_npy((-2, -2), numbers=bytes(16)), "damaged or incomplete"),
        (_npy((1,), "<U4", bytes(16)), "holds <U4, not numbers"),
        (_npy((1,), "<c8", bytes(8)), "holds complex64, not numbers"),
        (b"\x93NUMPY\x09\x00", "damaged or incomplete"),
        (b"", "damaged or incomplete"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_arrays_of_an_npz_are_refused(tmp_path, entry, said):
    (tmp_path / "w.npz").write_bytes(_npz(entry))
    with pytest.raises(UserError, match=said):
        read_weights(tmp_path / "w.npz")


def test_objects_in_an_npz_are_refused_and_not_unpickled(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (tmp_path / "executed").touch, ()

    np.savez(tmp_path / "w.npz", w=np.array([Harmful()], object))
    with pytest.raises(UserError, match="holds object, not numbers"):
        read_weights(tmp_path / "w.npz")
    assert not (tmp_path / "executed").exists()


def test_an_npz_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_ALWAYS_ALLOWED", 1 << 16)
    size = 1 << 20
    bomb = _npz(_npy((size // 4,), numbers=bytes(size)), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 13
    (tmp_path / "w.npz").write_bytes(bomb)
    with pytest.raises(UserError, match="unpacks to more than"):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("write", [np.savez_compressed, safetensors.numpy.save_file])
def test_any_damage_gives_weights_or_one_message(tmp_path, write):
    path = tmp_path / "w.npz"
    if write is np.savez_compressed:
        write(path, **ARRAYS)
    else:
        write(ARRAYS, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        length = rng.integers(len(whole)) if trial % 2 else len(whole)
        path.write_bytes(bytes(damaged[:length]))
        try:
            read_weights(path)
        except UserError:
            pass

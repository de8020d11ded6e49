"""Files of both formats: made by hand, and by torch if it is installed."""

import argparse
import collections
import io
import os
import zipfile

import ml_dtypes
import numpy as np
import pytest

from common.errors import UserError
from common.weights.files import read_weights
from tests.common import torch_bytes as tb

KINDS = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


def _write(path, body, storages, form, little=True):
    """Writes arrays by key and tensors that refer to them, in one of the formats."""
    if form == "zip":
        kept = {key: array.tobytes() for key, array in storages.items()}
        path.write_bytes(tb.zipped(body, kept, order=b"little" if little else b"big"))
    else:
        path.write_bytes(tb.legacy(body, storages, little=little))
    return path


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_every_type_of_numbers_is_read(tmp_path, form):
    arrays = {kind: np.array([0, 1, 3], dtype) for kind, dtype in KINDS.items()}
    body = tb.mapping(**{kind: tb.tensor(kind, (3,), kind=kind) for kind in KINDS})
    found = read_weights(_write(tmp_path / "w.pt", body, arrays, form))
    for kind, array in arrays.items():
        is_float = kind in ("DoubleStorage", "FloatStorage", "HalfStorage") or (
            kind == "BFloat16Storage"
        )
        assert found[kind].dtype == (np.float32 if is_float else array.dtype)
        np.testing.assert_array_equal(found[kind], array.astype(found[kind].dtype))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_big_endian_files_are_read(tmp_path, form):
    array = np.array([1.5, -2.0, 1e-3])
    body = tb.mapping(w=tb.tensor("0", (3,), kind="DoubleStorage"))
    path = tmp_path / "w.pt"
    _write(path, body, {"0": array.astype(">f8")}, form, little=False)
    np.testing.assert_array_equal(read_weights(path)["w"], array.astype(np.float32))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tensors_that_share_a_storage(tmp_path, form):
    numbers = np.arange(12, dtype=np.float32)
    body = tb.mapping(
        whole=tb.tensor("0", (3, 4), count=12),
        transposed=tb.tensor("0", (4, 3), strides=(1, 4), count=12),
        column=tb.tensor("0", (3,), strides=(4,), offset=2, count=12),
        last=tb.tensor("0", (1, 1), offset=11, count=12),
        repeated=tb.tensor("0", (5,), strides=(0,), offset=7, count=12),
        empty=tb.tensor("0", (0, 4), offset=12, count=12),
        other=tb.tensor("1", (2,)),
    )
    storages = {"0": numbers, "1": np.array([8, 9], np.float32)}
    found = read_weights(_write(tmp_path / "w.pt", body, storages, form))
    table = numbers.reshape(3, 4)
    expected = {
        "whole": table,
        "transposed": table.T,
        "column": table[:, 2],
        "last": table[2:, 3:],
        "repeated": np.full(5, 7.0),
        "empty": table[:0],
        "other": [8, 9],
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].flags.c_contiguous and found[name].flags.writeable


def test_views_of_2017_are_read(tmp_path):
    view = tb.group(tb.text("v"), tb.integer(4), tb.integer(3))
    body = tb.mapping(w=tb.tensor("0", (2,), offset=1, count=9, view=view))
    storages = {"0": np.arange(9, dtype=np.float32)}
    found = read_weights(_write(tmp_path / "w.th", body, storages, "legacy"))
    np.testing.assert_array_equal(found["w"], [5, 6])


OUTSIDE = {
    "offset": {"shape": (2,), "offset": 3, "count": 4},
    "large offset": {"shape": (1,), "offset": 2**61, "count": 4},
    "shape": {"shape": (5,), "count": 4},
    "stride": {"shape": (2, 2), "strides": (3, 1), "count": 4},
    "large stride": {"shape": (2,), "strides": (2**61,), "count": 4},
    "storage": {"shape": (5,), "count": 5},
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("case", OUTSIDE)
def test_tensors_outside_their_storage_are_refused(tmp_path, case, form):
    body = tb.mapping(w=tb.tensor("0", **OUTSIDE[case]))
    path = _write(tmp_path / "w.pt", body, {"0": np.zeros(4, np.float32)}, form)
    with pytest.raises(UserError, match="w lies outside its storage of 4 numbers"):
        read_weights(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("shape", [(2**40, 2**40), (2**31,), (0, 2**61, 2**61)])
def test_tensors_larger_than_the_file_are_refused(tmp_path, shape, form):
    strides = (0,) * len(shape)
    body = tb.mapping(w=tb.tensor("0", shape, strides=strides, count=4))
    path = _write(tmp_path / "w.pt", body, {"0": np.zeros(4, np.float32)}, form)
    if 0 in shape:
        with pytest.raises(UserError, match="damaged or incomplete"):
            read_weights(path)
    else:
        with pytest.raises(UserError, match=r"numbers, too many for .* bytes"):
            read_weights(path)


def test_storages_that_overlap_are_refused(tmp_path):
    inner = tb.zipped(b"}", {"1": bytes(4096)})
    body = tb.mapping(v=tb.tensor("0", (1,)), w=tb.tensor("1", (1,)))
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("net/data.pkl", tb.program(body))
        with zipfile.ZipFile(io.BytesIO(inner)) as other:
            hidden = other.getinfo("net/data/1")
        archive.writestr("net/data/0", inner)
        # An entry in the directory that lies inside the entry before.
        before = archive.getinfo("net/data/0")
        hidden.header_offset += before.header_offset + 30 + len(before.filename)
        archive.filelist.append(hidden)
        archive.NameToInfo[hidden.filename] = hidden
    with pytest.raises(UserError, match=r"[Oo]verlap"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_every_truncation_is_refused(tmp_path, form):
    body = tb.mapping(a=tb.tensor("0", (2, 2)), b=tb.tensor("1", (3,)))
    storages = {"0": np.ones(4, np.float32), "1": np.ones(3, np.float32)}
    whole = _write(tmp_path / "w.pt", body, storages, form).read_bytes()
    assert len(read_weights(tmp_path / "w.pt")) == 2
    for length in range(0, len(whole), 7):
        (tmp_path / "w.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"w\.pt: "):
            read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_any_damage_gives_weights_or_one_message(tmp_path, form):
    body = tb.mapping(a=tb.tensor("0", (2, 2)), b=tb.tensor("1", (3,)))
    storages = {"0": np.ones(4, np.float32), "1": np.ones(3, np.float32)}
    whole = _write(tmp_path / "w.pt", body, storages, form).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(120):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / "w.pt").write_bytes(bytes(damaged))
        try:
            read_weights(tmp_path / "w.pt")
        except UserError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_malicious_files_are_refused_and_not_executed(tmp_path, form):
    victim = tmp_path / "executed"
    harmful = tb.call(tb.name(os.name, "system"), tb.text(f"touch {victim}"))
    body = tb.mapping(a=tb.tensor("0", (2,)), b=harmful)
    path = _write(tmp_path / "w.pt", body, {"0": np.ones(2, np.float32)}, form)
    with pytest.raises(UserError, match=rf"w\.pt: .*forbidden global {os.name}\.sys"):
        read_weights(path)
    assert not victim.exists()


def test_compressed_and_missing_entries_are_refused(tmp_path):
    body = tb.mapping(w=tb.tensor("0", (1,)))
    path = tmp_path / "w.pt"
    numbers = {"0": np.zeros(1, np.float32).tobytes()}
    path.write_bytes(tb.zipped(body, numbers, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="compressed or encrypted"):
        read_weights(path)
    path.write_bytes(tb.zipped(body, {}))
    with pytest.raises(UserError, match="net/data/0"):
        read_weights(path)
    path.write_bytes(tb.legacy(body, {}))
    with pytest.raises(UserError, match="the numbers of 0 are missing"):
        read_weights(path)


def test_programs_and_other_pickles_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", tb.program(b"}"))
        archive.writestr("net/constants.pkl", tb.program(b")"))
    with pytest.raises(UserError, match="TorchScript"):
        read_weights(path)
    path.write_bytes(tb.program(tb.mapping(w=tb.integer(1))))
    with pytest.raises(UserError, match=r"not one that torch\.save wrote"):
        read_weights(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_key_chooses_weights_and_the_message_names_it(tmp_path, form):
    body = tb.mapping(
        state_dict=tb.mapping(w=tb.tensor("0", (2,))),
        state_dict_ema=tb.mapping(w=tb.tensor("1", (2,))),
    )
    arrays = {"0": np.ones(2, np.float32), "1": np.full(2, 2, np.float32)}
    path = _write(tmp_path / "w.pt", body, arrays, form)
    for key, value in (("state_dict", 1), ("state_dict_ema", 2)):
        found = read_weights(path, key=key, key_name="teacher.weights_key")
        np.testing.assert_array_equal(found["w"], [value, value])
    with pytest.raises(UserError) as error:
        read_weights(path, key_name="teacher.weights_key")
    assert (
        "Say which: --config.teacher.weights_key=KEY, with one of state_dict, "
        "state_dict_ema. Accepted" in str(error.value)
    )
    with pytest.raises(UserError, match="several networks' weights") as error:
        read_weights(path)
    assert "Say which" not in str(error.value)


def test_only_checkpoints_have_keys(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.ones(2, np.float32))
    with pytest.raises(UserError, match=r"config\.k: got 'ema', accepted: '', because"):
        read_weights(tmp_path / "w.npz", key="ema", key_name="k")


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_writes_is_read(tmp_path, is_zip, protocol):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
    )
    network[2].half()
    state = network.state_dict()
    state["view"] = torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1)[1:, :, ::2]
    state["low"] = torch.tensor([1.5, 3e38], dtype=torch.bfloat16)
    state["parameter"] = torch.nn.Parameter(torch.ones(2))
    checkpoint = {
        "state_dict": state,
        "optimizer": {
            "state": {0: {"step": 1, "exp_avg": torch.zeros(2)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}],
        },
        "epoch": 3,
        "best": torch.tensor(91.7),
        "score": np.float64(91.7),
        "arch": "resnet20",
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        # As torchvision's and timm's training scripts save them.
        "args": argparse.Namespace(lr=0.1, device="cuda", milestones=[30, 60]),
        "lr_scheduler": {"milestones": collections.Counter([30, 60])},
    }
    path = tmp_path / "w.anything"
    torch.save(
        checkpoint,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=is_zip,
    )
    found = read_weights(path)
    assert set(found) == set(state)
    for name, tensor in state.items():
        expected = tensor.detach()
        if expected.is_floating_point():
            expected = expected.float()
        np.testing.assert_array_equal(found[name], expected.numpy())


def test_whole_networks_pickled_by_torch_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(tmp_path / "w.pt")

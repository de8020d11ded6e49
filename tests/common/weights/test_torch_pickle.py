import argparse
import collections
import io
import os
import pathlib
import pickle
import random
import sys
import tracemalloc

import pytest

from common.weights.torch_globals import (
    Opaque,
    Storage,
    TensorView,
    UnreadablePickleError,
)
from common.weights.torch_pickle import unpickle
from tests.common import torch_bytes as tb

DATA = {
    "text": "weights ä",
    "numbers": [0, 1, -1, 255, 65536, -(2**40), 2**70, 1.5, -0.0],
    "constants": (None, True, False, (), [], {}),
    "nested": {"a": (1, (2, (3, [4, {5: b"six"}])))},
}


def _read(content):
    return unpickle(io.BytesIO(content)).value


@pytest.mark.parametrize("protocol", range(1, 6))
def test_plain_data_is_what_pickle_reads(protocol):
    data = DATA if protocol > 2 else {**DATA, "nested": 6}  # bytes: by _codecs there
    content = pickle.dumps(data, protocol)
    assert _read(content) == pickle.loads(content)


def test_the_source_stands_behind_the_pickle():
    source = io.BytesIO(pickle.dumps("one") + pickle.dumps("two") + b"rest")
    assert [unpickle(source).value for _ in range(2)] == ["one", "two"]
    assert source.read() == b"rest"


def test_shared_objects_are_the_same_object():
    shared = [1]
    first, second = _read(pickle.dumps([shared, shared]))
    assert first is second


def test_tensors_become_views():
    found = unpickle(io.BytesIO(tb.program(tb.tensor("7", (2, 3), count=9, offset=3))))
    assert found.value == TensorView(
        storage=Storage(key="7", dtype="float32", start=0, count=9),
        offset=3,
        shape=(2, 3),
        strides=(3, 1),
    )
    assert found.dtypes == {"7": "float32"}


def test_parameters_and_views_of_2017():
    view = tb.group(tb.text("v"), tb.integer(4), tb.integer(2))
    body = tb.call(
        tb.name("torch._utils", "_rebuild_parameter"),
        tb.tensor("k", (2,), count=9, view=view),
        b"\x88",
    )
    assert _read(tb.program(body)).storage == Storage(
        key="k", dtype="float32", start=4, count=2
    )


def test_ordered_dicts_of_python_2_and_3():
    pair = tb.listing(tb.text("a"), tb.integer(1))
    of_pairs = tb.call(tb.name("collections", "OrderedDict"), tb.listing(pair))
    assert _read(tb.program(of_pairs)) == {"a": 1}
    with_state = tb.call(tb.name("collections", "OrderedDict"))
    with_state += tb.mapping(_metadata=b"}") + b"b"
    assert _read(tb.program(with_state)) == {}


def test_numpy_scalars_are_read_as_of_no_interest():
    np = pytest.importorskip("numpy")
    for protocol in (2, 4):
        found = _read(pickle.dumps({"best": np.float64(91.7)}, protocol))
        assert found == {"best": Opaque("NumPy scalar")}


class _Options(argparse.Namespace):
    """A class of a user, which no file may name."""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_arguments_of_a_training_are_ignored(protocol):
    arguments = argparse.Namespace(
        lr=0.1,
        data=pathlib.PosixPath(
            "/", *"a/data/set/many/folders/deep/inside/it".split("/")
        ),
        milestones=collections.Counter([30, 60, 60]),
        nested=argparse.Namespace(arch="resnet18"),
    )
    content = {"args": arguments, "again": [arguments], "epoch": 3}
    ignored = Opaque("argparse.Namespace")
    assert _read(pickle.dumps(content, protocol)) == {
        "args": ignored,
        "again": [ignored],
        "epoch": 3,
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_of_other_classes_are_refused(protocol):
    with pytest.raises(UnreadablePickleError, match=r"forbidden global .*_Options"):
        _read(pickle.dumps({"args": _Options(lr=0.1)}, protocol))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (tb.name("torch", "device") + b")\x81", "makes an object of torch.device"),
        (b"})\x81", "an object of what is no class"),
        (b")\x81", "damaged"),
        (tb.name("argparse", "Namespace") + b")R", "calls argparse.Namespace"),
    ],
)
def test_only_classes_of_arguments_have_objects(body, said):
    with pytest.raises(UnreadablePickleError, match=said):
        _read(tb.program(body))


class _Malicious:
    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("protocol", range(6))
def test_what_a_pickle_calls_is_named_and_not_executed(tmp_path, protocol):
    victim = tmp_path / "executed"
    harmful = _Malicious(os.system, f"touch {victim}")
    with pytest.raises(UnreadablePickleError, match=rf"global {os.name}.system"):
        _read(pickle.dumps({"weight": harmful}, protocol))
    assert not victim.exists()
    # The same bytes do what they say in the usual machine: the test could fail.
    pickle.loads(pickle.dumps(harmful, protocol))
    assert victim.exists()


def test_modules_are_not_even_imported():
    assert "this" not in sys.modules
    with pytest.raises(UnreadablePickleError, match=r"forbidden global this\.s"):
        _read(tb.program(tb.name("this", "s")))
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (tb.name("builtins", "eval"), "forbidden global builtins.eval"),
        (tb.name("torch.storage", "_load_from_bytes"), "_load_from_bytes"),
        (tb.name("collections", "OrderedDict.fromkeys"), "OrderedDict.fromkeys"),
        (tb.name("torch\\c", "Size"), r"forbidden global torch\\c\.Size"),
        (tb.call(tb.name("torch", "FloatStorage")), "which makes no data"),
        (tb.call(tb.text("os.system")), "calls what is no global"),
        (tb.text("a") + b"}b", "state of what is no dict"),
        (tb.integer(1) + tb.integer(2) + b"a", "damaged: .* no attribute 'append'"),
        (tb.integer(1) + tb.text("k") + tb.integer(2) + b"s", "items of what is no d"),
        (b"}" + tb.group() + tb.integer(1) + b"s", "neither a text nor a number"),
        (b"(i__main__\nX\n", "the opcode INST"),
        (tb.name("torch", "Size") + b")\x81", "makes an object of torch.Size"),
        (tb.name("torch", "Size") + b")}\x92", "the opcode NEWOBJ_EX"),
        (b"(" + tb.name("torch", "Size") + b"o", "the opcode OBJ"),
        (b"\x82\x01", "the opcode EXT1"),
        (b"\x8f", "the opcode EMPTY_SET"),
        (b"\x96" + b"\xff" * 7 + b"\x7f", "the opcode BYTEARRAY8"),
        (tb.text("k") + b"Q", "refers to what is no storage"),
        (tb.call(tb.name("torch", "device"), *65 * [b"N"]), "too many arguments"),
        (tb.name("torch", "Size") + b"}" + b"b", "state of what is no dict"),
        (tb.text("a") + b")R", "calls what is no global"),
        (tb.name("torch", "Size") + tb.text("a") + b"R", "calls what is no global"),
        (b"h\x05", "damaged"),
        (b"0", "damaged: pop from empty list"),
        (b"t", "damaged"),
        (b"K\x01((0", "does not end with one object"),
        (b"", "does not end with one object"),
        (b"K\x01K\x02", "does not end with one object"),
        (b"\xff", "damaged: unknown opcode 0xff"),
        (tb.text("a") + b"Q", "refers to what is no storage"),
        (tb.storage("k", -1), "no whole number from 0"),
        (tb.storage("k", 2**64), "no whole number from 0"),
        (tb.tensor("k", (2,), strides=(1, 1)), "too many or few strides"),
        (tb.tensor("k", (2,), offset=-8), "no whole number from 0"),
        (tb.tensor("k", (1,) * 33), "what should be sizes is none"),
        (
            tb.group(tb.storage("k", 1), tb.storage("k", 1, "LongStorage")),
            "two types of numbers",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_weights_do_not_need_is_refused(body, said):
    with pytest.raises(UnreadablePickleError, match=said):
        _read(tb.program(body))


def test_a_tuple_that_could_be_hashed_forever_is_refused():
    body = b")" + b"2\x86" * 60  # each twice the one before
    with pytest.raises(UnreadablePickleError, match="but a tuple"):
        _read(tb.program(b"}" + body + b"Ns"))


@pytest.mark.parametrize("body", [b"})Ns", b"()Nd", b"}()Nu"])
def test_no_way_of_setting_items_takes_a_tuple_as_key(body):
    with pytest.raises(UnreadablePickleError, match="but a tuple"):
        _read(tb.program(body))


def test_a_key_nested_deeper_than_the_machine_can_hash_is_refused():
    with pytest.raises(UnreadablePickleError, match="but a tuple"):
        _read(tb.program(b"})" + b"\x85" * 150_000 + b"Ns"))


@pytest.mark.slow
def test_what_is_nested_deeply_is_read():
    found = _read(tb.program(b"]" * 150_000 + b"a" * 149_999))
    depth = 0
    while found:
        (found,) = found
        depth += 1
    assert depth == 149_999


def test_a_claim_of_many_remembered_objects_takes_no_memory():
    tracemalloc.start()
    assert _read(b"\x80\x02Nr\xff\xff\xff\x7f.") is None  # number 2^31 - 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_copying_a_list_again_and_again_is_refused():
    pairs = b"".join(tb.group(tb.integer(k), b"N") for k in range(1000))
    copies = b"h\x00h\x01\x85R" * 1000  # together a million pairs
    body = tb.name("collections", "OrderedDict") + b"q\x00](" + pairs + b"eq\x01("
    with pytest.raises(UnreadablePickleError, match="again and again"):
        _read(tb.program(body + copies))


def test_lengths_that_lie_are_refused():
    for body in (b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"\x8e" + b"\x7f" * 8):
        with pytest.raises(UnreadablePickleError, match="damaged"):
            _read(b"\x80\x04" + body + b"abc")


def test_noise_and_damage_are_always_refused_or_read():
    rng = random.Random(0)
    whole = tb.program(tb.mapping(a=tb.tensor("0", (2, 2)), b=tb.integer(3)))
    for trial in range(400):
        damaged = bytearray(whole)
        for _ in range(1 + trial % 4):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            _read(
                bytes(damaged[: rng.randrange(len(damaged))] if trial % 2 else damaged)
            )
        except UnreadablePickleError:
            pass

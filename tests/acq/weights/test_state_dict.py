import pytest

from acq.weights.state_dict import find_state_dict, unwrapped
from acq.weights.torch_globals import Opaque, Storage, TensorView, UnreadablePickleError

_STORAGE = Storage(key="0", dtype="float32", start=0, count=4)
TENSOR = TensorView(storage=_STORAGE, offset=0, shape=(4,), strides=(1,))
SCALAR = TensorView(storage=_STORAGE, offset=0, shape=(), strides=())
WEIGHTS = {"conv.weight": TENSOR, "bn.num_batches_tracked": SCALAR}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {**WEIGHTS, "epoch": 3, "accuracy": SCALAR},
        {"state_dict": WEIGHTS},
        {"model": WEIGHTS, "arch": "resnet20", "best": SCALAR, "extra": None},
        {"net": WEIGHTS, "acc": Opaque("NumPy scalar"), "epoch": 3, "lr": 0.1},
        {"model_state_dict": WEIGHTS, "optimizer": {"state": {0: {"m": TENSOR}}}},
        {"state_dict": {**WEIGHTS, "version": 2}, "scheduler": [1, [2]]},
    ],
)
def test_weights_are_found_beside_plain_values(content):
    assert find_state_dict(content) == WEIGHTS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TENSOR, "it holds a tensor, not a dict"),
        ([TENSOR], "it holds a list, not a dict"),
        ({}, "it holds no tensors"),
        ({"epoch": 3}, "it holds no tensors"),
        ({"state_dict": {}}, "it holds no tensors"),
        (
            {"state_dict": WEIGHTS, "model": WEIGHTS},
            "networks' weights: state_dict, mo",
        ),
        ({"state_dict": WEIGHTS, "ema": WEIGHTS}, r"plain value: 'ema' \(a dict\)"),
        ({"state_dict": WEIGHTS, "mean": TENSOR}, r"beside it: 'mean' \(a tensor\)"),
        ({"state_dict": {**WEIGHTS, "x": [1]}}, r"plain value: 'x' \(a list\)"),
        ({0: TENSOR}, "tensors without names"),
        ({str(i): [] for i in range(9)}, r"'2' \(a list\) and 6 more"),
    ],
)
def test_what_may_be_other_weights_is_refused(content, said):
    with pytest.raises(UnreadablePickleError, match=said):
        find_state_dict(content)


def test_prefixes_go_only_where_every_name_has_them():
    assert unwrapped({"module.a": 1, "module.b.c": 2}) == {"a": 1, "b.c": 2}
    assert unwrapped({"_orig_mod.module.a": 1}) == {"a": 1}
    assert unwrapped({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}
    assert unwrapped({"module.": 1}) == {"": 1}
    assert unwrapped({}) == {}

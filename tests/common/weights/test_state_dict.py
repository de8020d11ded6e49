import pytest

from common.weights.state_dict import find_state_dict
from common.weights.torch_globals import (
    Opaque,
    Storage,
    TensorView,
    UnreadablePickleError,
)

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
        {  # PyTorch Lightning
            **{"state_dict": WEIGHTS, "pytorch-lightning_version": "2.5"},
            **{"loops": {"fit": {"progress": {"total": 3}}}, "lr_schedulers": []},
            **{"callbacks": {"Checkpoint": {"best": SCALAR, "every": (1, None)}}},
            "optimizer_states": [{"state": {0: {"exp_avg": TENSOR}}}],
        },
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
        ({"state_dict": WEIGHTS, "ema": WEIGHTS}, r"dict of them: 'ema' \(a dict\)"),
        ({"state_dict": WEIGHTS, "mean": TENSOR}, r"beside it: 'mean' \(a tensor\)"),
        ({"state_dict": {**WEIGHTS, "x": [1, {2: TENSOR}]}}, r"them: 'x' \(a list\)"),
        ({0: TENSOR}, "tensors without names"),
        ({str(i): [TENSOR] for i in range(9)}, r"'2' \(a list\) and 6 more"),
    ],
)
def test_what_may_be_other_weights_is_refused(content, said):
    with pytest.raises(UnreadablePickleError, match=said):
        find_state_dict(content)


def test_a_list_that_holds_itself_is_looked_at_once():
    loop: list = [1]
    loop.append(loop)
    assert find_state_dict({"state_dict": WEIGHTS, "loop": loop}) == WEIGHTS

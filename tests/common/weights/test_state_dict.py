import pytest

from common.weights.state_dict import AmbiguousWeightsError, find_state_dict
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
        *({key: WEIGHTS, "epoch": 3} for key in ("network", "weights", "params")),
        {"state_dict_ema": WEIGHTS, "params": {"lr": 0.1}, "model": {}},
        # Averaged weights count their updates in a tensor without axes.
        {"model_ema": {**WEIGHTS, "n_averaged": SCALAR}},
        {"model": WEIGHTS, "args": Opaque("argparse.Namespace")},
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
        ({"state_dict": WEIGHTS, "best": WEIGHTS}, r"dict of them: 'best' \(a dict\)"),
        ({"state_dict": WEIGHTS, "mean": TENSOR}, r"beside it: 'mean' \(a tensor\)"),
        ({"state_dict": {**WEIGHTS, "x": [1, {2: TENSOR}]}}, r"them: 'x' \(a list\)"),
        ({0: TENSOR}, "tensors without names"),
        ({str(i): [TENSOR] for i in range(9)}, r"'2' \(a list\) and 6 more"),
    ],
)
def test_what_may_be_other_weights_is_refused(content, said):
    with pytest.raises(UnreadablePickleError, match=said):
        find_state_dict(content)


_OTHER = {"conv.weight": SCALAR, "other.weight": TENSOR}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": WEIGHTS, "state_dict_ema": _OTHER},
        {"model_ema": _OTHER, "state_dict": WEIGHTS, "optimizer": {"m": {0: TENSOR}}},
        {"state_dict": WEIGHTS, "discriminator": _OTHER, "rng_state": TENSOR},
        {"generator": _OTHER, "state_dict": WEIGHTS, "history": [TENSOR]},
    ],
)
def test_a_key_chooses_one_of_several_networks(content):
    with pytest.raises(AmbiguousWeightsError) as error:
        find_state_dict(content)
    choices = error.value.choices.split(", ")
    assert choices == [key for key in content if content[key] in (WEIGHTS, _OTHER)]
    for key in choices:
        expected = {n: t for n, t in content[key].items() if n != "conv.weight"}
        found = find_state_dict(content, key)
        assert {n: t for n, t in found.items() if n != "conv.weight"} == expected
    with pytest.raises(
        UnreadablePickleError, match=r"under 'model', but under .*state"
    ):
        find_state_dict(content, "model")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {}, "model": {"epoch": 3}}, "under 'model', under any key"),
        ({"model": TENSOR}, "under 'model', under any key"),
        ({"model": {"a": [TENSOR]}}, r"them: 'a' \(a list\)"),
        ({"optimizer": {"a": TENSOR}}, "under any key"),
        ({f"{i:03}" + "x" * 99: WEIGHTS for i in range(20)}, "007x{57} and 12 more$"),
    ],
)
def test_a_key_without_weights_is_refused(content, said):
    with pytest.raises(UnreadablePickleError, match=said):
        find_state_dict(content, "model")


def test_a_list_that_holds_itself_is_looked_at_once():
    loop: list = [1]
    loop.append(loop)
    assert find_state_dict({"state_dict": WEIGHTS, "loop": loop}) == WEIGHTS

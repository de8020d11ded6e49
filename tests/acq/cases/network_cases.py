"""Networks of users, right and wrong, each as a file of code."""

from collections.abc import Mapping
from pathlib import Path

from tests.acq.cases.case import Build, Case

_CODE = """\
import flax.linen as nn
import jax
import jax.numpy as jnp


class Net(nn.Module):
    layers: object
    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        x = make.conv(8, 3, padding=1, name="conv0")(x)
        x = make.batch_norm(name="bn0")(x, train)
        x = make.activation("relu", name="act0")(x)
        x = make.conv(8, 3, strides=2, padding=1, name="conv1")(x)
        x = make.batch_norm(name="bn1")(x, train)
        x = make.activation("relu", name="act1")(x)
        pooled = jnp.mean(x, (1, 2))
        return make.dense(self.classes, name="head")(pooled), x
"""
_ACT0 = '        x = make.activation("relu", name="act0")(x)\n'
_BN1 = '        x = make.batch_norm(name="bn1")(x, train)\n'
_CONV1 = '        x = make.conv(8, 3, strides=2, padding=1, name="conv1")(x)\n'
_POOLED = "        pooled = jnp.mean(x, (1, 2))\n"


def _network(name: str, changes: Mapping[str, str], *overrides: str) -> Build:
    """Writes the code with some lines replaced, in a module with a new name."""
    code = _CODE
    for old, new in changes.items():
        assert old in code, old
        code = code.replace(old, new)

    def build(folder: Path) -> list[str]:
        (folder / f"net_{name}.py").write_text(code)
        return [
            f"--config.teacher.name=net_{name}:Net",
            "--config.teacher.depth=0",
            "--config.teacher.classes=3",
            "--config.teacher.image_size=16",
            "--config.eval.dataset=",
            *overrides,
        ]

    return build


def _line(text: str) -> str:
    return f"        {text}\n"


_RIGHT: dict[str, dict[str, str]] = {
    "plain": {},
    "max_pool": {_CONV1: _line("x = nn.max_pool(x, (2, 2), (2, 2))") + _CONV1},
    "mean_pool": {_CONV1: _line("x = nn.avg_pool(x, (2, 2), (2, 2))") + _CONV1},
    "train_by_keyword": {"(x, train)\n": "(x, train=train)\n"},
    "input_by_keyword": {'name="conv1")(x)': 'name="conv1")(x=x)'},
    "input_cut_off": {'name="conv0")(x)': 'name="conv0")(jnp.clip(x, -2, 2))'},
    "padded_and_joined": {
        _CONV1: _line("x = jnp.concatenate([x, jnp.pad(x, [(0, 0)] * 4)], -1)") + _CONV1
    },
    "scaled_by_a_parameter": {
        _CONV1: _line('x = x * self.param("gamma", nn.initializers.ones, (1, 1, 1, 8))')
        + _CONV1
    },
    "norm_before_activation_before_convolution": {
        _ACT0: "",
        _CONV1: _ACT0 + _CONV1,
    },
    "rectified_twice": {'name="act0")(x)': 'name="act0")(nn.relu(x))'},
    "sum_before_the_norm": {
        _BN1: _line('y = make.conv(8, 1, padding=0, name="conv2")(x)')
        + _line('x = make.batch_norm(name="bn1")(x + y, train)')
    },
    "softmax_of_logits": {
        'make.dense(self.classes, name="head")(pooled)': "nn.softmax("
        'make.dense(self.classes, name="head")(pooled))'
    },
}

_WARNED: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "convolution_without_norm": (
        {_BN1: ""},
        ("no batch normalisation takes the output of conv1",),
    ),
    "convolution_between": (
        {_CONV1: _line('x = make.conv(8, 1, padding=0, name="between")(x)') + _CONV1},
        ("no batch normalisation takes the output of between",),
    ),
}

_OUTSIDE = "outside of layers"
_TRAIN = "pass train on"
_BROKEN: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "relu_outside": ({_ACT0: _line("x = nn.relu(x)")}, ("conv1", _OUTSIDE, "max")),
    "maximum_outside": (
        {_ACT0: _line("x = jnp.maximum(x, 0)")},
        ("conv1", _OUTSIDE, "max"),
    ),
    "silu_outside": ({_ACT0: _line("x = nn.silu(x)")}, ("conv1", _OUTSIDE, "logistic")),
    "leaky_outside": (
        {_ACT0: _line("x = jnp.where(x > 0, x, 0.1 * x)")},
        ("conv1", _OUTSIDE, "select_n"),
    ),
    "jitted_relu_outside": (
        {_ACT0: _line("x = jax.jit(nn.relu)(x)")},
        ("conv1", _OUTSIDE),
    ),
    "relu_outside_before_the_head": (
        {_POOLED: _line("pooled = nn.relu(jnp.mean(x, (1, 2)) - 1)")},
        ("head", _OUTSIDE),
    ),
    "relu_outside_then_marked": (
        {
            _ACT0: _line("x = nn.relu(x)")
            + _line('x = make.activation("identity", name="quant")(x)')
        },
        ("conv1", _OUTSIDE),
    ),
    "gate_outside": (
        {_CONV1: _line("x = x * nn.sigmoid(jnp.mean(x, -1, keepdims=True))") + _CONV1},
        ("conv1", _OUTSIDE, "logistic"),
    ),
    "features_of_one_position": (
        {_POOLED: _line("x = jnp.mean(x, (1, 2), keepdims=True)") + _POOLED},
        ("its features are 1 x 1", "2 x 2 positions or more", "center_weight=0"),
    ),
    "train_false_in_one_norm": (
        {_BN1: _BN1.replace("train)", "False)")},
        ("with train=True, bn1 got train=False", _TRAIN),
    ),
    "train_given_to_no_norm": (
        {"(x, train)\n": "(x)\n"},
        ("with train=True, bn0, bn1 got train=False", _TRAIN),
    ),
    "train_true_in_one_norm": (
        {_BN1: _BN1.replace("train)", "True)")},
        ("with train=False, bn1 got train=True", _TRAIN),
    ),
    "train_upside_down": (
        {"(x, train)\n": "(x, not train)\n"},
        ("bn0, bn1 got train=True", _TRAIN),
    ),
    "no_train": ({"(self, x, train=False)": "(self, x)", "train": "False"}, ("train",)),
    "dropout": (
        {_POOLED: _line("x = nn.Dropout(0.5, deterministic=not train)(x)") + _POOLED},
        ("it has dropout (Dropout_0, ", "net_dropout.py:19)", "leave it out"),
    ),
    "dropout_by_name": (
        {_POOLED: _line('x = nn.Dropout(0.5, name="drop")(x, not train)') + _POOLED},
        ("it has dropout (drop, ", "net_dropout_by_name.py:19)", "leave it out"),
    ),
    "dropout_that_is_told_nothing": (
        {_POOLED: _line("x = nn.Dropout(0.5)(x)") + _POOLED},
        ("it has dropout (Dropout_0, ", "told_nothing.py:19)", "leave it out"),
    ),
    "flax_convolution": (
        {_CONV1: _line('x = nn.Conv(8, (3, 3), name="conv1")(x)')},
        ("did not make conv1/kernel",),
    ),
    "flax_norm": (
        {_BN1: _line('x = nn.BatchNorm(not train, name="bn1")(x)')},
        ("layers.batch_norm did not make all",),
    ),
    "logits_alone": ({"(pooled), x": "(pooled)"}, ("must return logits",)),
    "raises_on_import": (
        {"class Net": 'raise RuntimeError("no licence found")\n\n\nclass Net'},
        ("cannot be imported", "net_raises_on_import.py:6", "no licence found"),
    ),
    "exits_on_import": (
        {"class Net": "raise SystemExit(3)\n\n\nclass Net"},
        ("cannot be imported", "net_exits_on_import.py:6", "SystemExit: 3"),
    ),
    "syntax_error": (
        {"make = self.layers": "make = = self.layers"},
        ("cannot be imported", "net_syntax_error.py:12", "SyntaxError"),
    ),
    "wrong_import": (
        {"import jax\n": "from jax import nothing_of_this_name\n"},
        ("cannot be imported", "net_wrong_import.py:2", "nothing_of_this_name"),
    ),
    "package_that_is_not_there": (
        {"import jax\n": "import no_such_package\n"},
        ("net_package_that_is_not_there.py:2", "No module named 'no_such_package'"),
    ),
    "raises_when_applied": (
        {_CONV1: _line('raise KeyError("stage 2")')},
        ("cannot be applied to images", "net_raises_when_applied.py:16", "stage 2"),
    ),
    "raises_in_training": (
        {_CONV1: _line("assert not train, 'frozen'") + _CONV1},
        ("cannot be applied to images", "net_raises_in_training.py:16", "frozen"),
    ),
    "unknown_variable": (
        {_POOLED: _line("pooled = jnp.mean(y, (1, 2))")},
        ("net_unknown_variable.py:19", "NameError"),
    ),
    "shapes_that_do_not_fit": (
        {_POOLED: _line("pooled = x.reshape(1, 7)")},
        ("net_shapes_that_do_not_fit.py:19", "reshape"),
    ),
    "layer_without_a_name": (
        {', name="conv1"': ""},
        ("net_layer_without_a_name.py:16", "name"),
    ),
    "unknown_activation": (
        {'activation("relu", name="act1")': 'activation("gelu", name="act1")'},
        ("net_unknown_activation.py:18",),
    ),
    "raises_when_made": (
        {
            "    @nn.compact": "    def __post_init__(self):\n"
            '        raise ValueError("width")\n\n    @nn.compact'
        },
        ("cannot be made", "net_raises_when_made.py:11", "width"),
    ),
    "no_classes": (
        {"    classes: int\n": "", "self.classes": "3"},
        ("must have the attributes layers and classes",),
    ),
}

NETWORK_CASES = (
    *(
        Case(
            name=name,
            build=_network(name, changes),
            outcome="right",
            forbidden=("Traceback", "no batch normalisation takes"),
        )
        for name, changes in _RIGHT.items()
    ),
    *(
        Case(
            name=name, build=_network(name, changes), outcome="right", expected=expected
        )
        for name, (changes, expected) in _WARNED.items()
    ),
    Case(
        name="features_of_one_position_without_attention",
        build=_network(
            "features_of_one_position_without_attention",
            _BROKEN["features_of_one_position"][0],
            "--config.generator.center_weight=0.0",
            "--config.generator.consistency_weight=0.0",
        ),
        outcome="right",
        expected=("centres and attention in the results mean nothing",),
    ),
    *(
        Case(name=name, build=_network(name, changes), expected=expected)
        for name, (changes, expected) in _BROKEN.items()
    ),
)

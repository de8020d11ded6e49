"""Bits of single layers as people ask for them, on the command line: right or refused.

Each case is a short run of a recipe with untrained weights; no file is needed.
"""

from collections.abc import Callable
from pathlib import Path

from tests.acq.cases.case import SMOKE, Case

_NETWORKS = "tests.acq.odd_networks"


def _given(*overrides: str) -> Callable[[Path], list[str]]:
    return lambda folder: [f"--config.{override}" for override in overrides]


def _layers(text: str, *more: str) -> Callable[[Path], list[str]]:
    return _given(f"quantizer.layers={text}", *more)


def _network(name: str, size: int = 16) -> tuple[str, ...]:
    """Returns overrides for a network outside the zoo."""
    return (
        f"teacher.name={_NETWORKS}:{name}",
        "teacher.depth=0",
        "teacher.classes=3",
        f"teacher.image_size={size}",
    )


_FORM = ("config.quantizer.layers: got", "a dictionary in quotes", "from 2 to 8")
_ENDS_8 = "quantizer.first_last_bits=8"

_RIGHT = {
    "none": (_given(), {}),
    "names": (_layers("{'linear': 8, 'conv1': 8}"), {"linear": 8, "conv1": 8}),
    "double_quotes": (_layers('{"linear": 8}'), {"linear": 8}),
    "empty_dictionary": (_layers("{}"), {}),
    "lowest_and_highest": (_layers("{'conv1': 2, 'act1': 8}"), {"conv1": 2, "act1": 8}),
    "stage": (
        _layers("{'layer3_*': 3}"),
        {f"layer3_0/{name}": 3 for name in ("conv1", "act1", "conv2", "act2")},
    ),
    "same_part_of_every_block": (
        _layers("{'*/conv2': 5}"),
        {f"layer{stage}_0/conv2": 5 for stage in (1, 2, 3)},
    ),
    "the_last_that_matches": (
        _layers("{'*conv1': 8, 'layer2*': 3}"),
        {
            **{name: 8 for name in ("conv1", "layer1_0/conv1", "layer3_0/conv1")},
            **{f"layer2_0/{n}": 3 for n in ("conv1", "act1", "conv2", "act2")},
        },
    ),
    "everything": (
        _layers("{'*': 6, 'linear': 8}"),
        {
            **{f"{name}1": 6 for name in ("conv", "act")},
            **{
                f"layer{stage}_0/{name}": 6
                for stage in (1, 2, 3)
                for name in ("conv1", "act1", "conv2", "act2")
            },
            "linear": 8,
        },
    ),
    "first_and_last": (_given(_ENDS_8), {"conv1": 8, "linear": 8}),
    "first_and_last_by_calls": (
        _given(_ENDS_8, *_network("Misnamed")),
        {"fc": 8, "conv1": 8, "a": 8},
    ),
    "last_takes_a_pooled_activation": (
        _given(_ENDS_8, *_network("Small")),
        {"stem": 8, "out": 8, "act": 8},
    ),
    "a_name_before_first_and_last": (
        _layers("{'linear': 6}", _ENDS_8),
        {"conv1": 8, "linear": 6},
    ),
    "left_float_with_its_bits": (
        _layers("{'quant_pooled': 6}", "quantizer.other_bits=8"),
        {"quant_pooled": 6},
    ),
}
_VARIANTS = {
    "variant": (f"{SMOKE},first_last_8", {"conv1": 8, "linear": 8}),
    "variant_integer_ready": (
        f"{SMOKE},integer_ready,first_last_8",
        {"conv1": 8, "linear": 8},
    ),
    "variant_published": (
        f"{SMOKE},published,gdfq,w3a3,first_last_8",
        {"conv1": 8, "linear": 8},
    ),
}
_REFUSED = {
    "no_such_layer": (
        _layers("{'fc': 8}"),
        ("'fc', which matches no layer", "layer1_0/conv1", "linear", "layer3_0/act2"),
    ),
    "no_such_pattern": (_layers("{'layer4/*': 8}"), ("'layer4/*'", "layer3_0/conv2")),
    "other_case": (_layers("{'Linear': 8}"), ("'Linear'", "linear")),
    "batch_norm": (_layers("{'bn1': 8}"), ("'bn1'", "conv1")),
    "one_of_two": (_layers("{'conv1': 8, 'head': 8}"), ("'head'", "linear")),
    "left_float": (
        _layers("{'quant_pooled': 8}"),
        ("'quant_pooled'", "stay float", "config.quantizer.other_bits"),
    ),
    "nine_bits": (_layers("{'linear': 9}"), _FORM),
    "one_bit": (_layers("{'linear': 1}"), _FORM),
    "float_bits": (_layers("{'linear': 8.0}"), _FORM),
    "true_bits": (_layers("{'linear': True}"), _FORM),
    "text_bits": (_layers("{'linear': '8'}"), _FORM),
    "pairs_of_weight_and_activation": (_layers("{'linear': (8, 8)}"), _FORM),
    "without_quotes": (_layers("{linear: 8}"), _FORM),
    "equals": (_layers("linear=8"), _FORM),
    "list": (_layers("['linear', 'conv1']"), _FORM),
    "set": (_layers("{'linear'}"), _FORM),
    "half_a_dictionary": (_layers("{'linear': 8"), _FORM),
    "a_name_twice": (_layers("{'linear': 8, 'linear': 6}"), _FORM),
    "empty_name": (_layers("{'': 8}"), _FORM),
    "number_as_name": (_layers("{1: 8}"), _FORM),
    "code": (_layers("{'linear': int('8')}"), _FORM),
    "starred": (_layers("{**{'linear': 8}}"), _FORM),
    "first_and_last_of_nine": (
        _given("quantizer.first_last_bits=9"),
        ("config.quantizer.first_last_bits: got 9", "at most 8"),
    ),
    **{
        f"budget_{name}": (
            _given(f"quantizer.budget_mb={value}"),
            (f"config.quantizer.budget_mb: got {value}", "a number at least 0"),
        )
        for name, value in (("nan", "nan"), ("below_0", "-0.5"), ("infinite", "inf"))
    },
}

BITS_CASES = (
    *(
        Case(name=name, build=build, outcome="right", bits=bits)
        for name, (build, bits) in _RIGHT.items()
    ),
    *(
        Case(name=name, build=_given(), outcome="right", bits=bits, recipe=recipe)
        for name, (recipe, bits) in _VARIANTS.items()
    ),
    *(
        Case(name=name, build=build, expected=expected)
        for name, (build, expected) in _REFUSED.items()
    ),
)

"""Bits chosen for a budget: what fits, what is measured, what is refused."""

import dataclasses
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl_logging

from acq.classifier import Classifier, Normalisation, Record
from acq.layers.bits import called_layers
from acq.layers.float import FloatLayers
from acq.layers.held import HeldLayers
from acq.quantization import bit_budget
from acq.quantization.bit_budget import (
    choose_bits_within,
    packed_bytes,
    refuse_small_budget,
    with_weight_bits,
)
from acq.quantization.sensitivity import (
    make_passes,
    measure_sensitivity,
    rounded_alone,
)
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from acq.quantization.student_layers import bits_by_layer, fixed_weight_bits
from common.errors import UserError
from tests.acq.own_network import PlainNet

KERNELS = {
    "conv0": (3, 3, 3, 4),
    "conv1": (3, 3, 4, 8),
    "conv2": (3, 3, 8, 16),
    "head": (16, 3),
}


@pytest.fixture(scope="module")
def teacher():
    network = PlainNet(FloatLayers(), 3, width=4)
    record = Record(
        name="tests.acq.own_network:PlainNet",
        classes=3,
        image_size=8,
        normalisation=Normalisation(mean=(0.5,) * 3, std=(0.2,) * 3),
    )
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return Classifier(network=network, variables=variables, record=record)


def size_of(bits):
    """Returns MB of the packed weights; by hand, without the module's own sums."""
    found = 0
    for name, shape in KERNELS.items():
        codes = int(np.prod(shape)) * bits[name]
        found += (codes + 7) // 8 + (4 + 1 + 2) * shape[-1]
    return found / 1e6


def settings_for(budget_mb, **others):
    return QuantizationSettings(
        quantizer=QuantizerSettings(budget_mb=budget_mb, **others)
    )


def alike(bits):
    return dict.fromkeys(KERNELS, bits)


def chosen(teacher, budget_mb, **others):
    settings = settings_for(budget_mb, **others)
    refuse_small_budget(settings.quantizer, teacher)
    found = with_weight_bits(settings, choose_bits_within(settings, teacher).bits)
    return bits_by_layer(found.quantizer, teacher)


@pytest.fixture
def said(monkeypatch, caplog):
    monkeypatch.setattr(absl_logging.get_absl_logger(), "propagate", True)
    caplog.set_level(logging.INFO, logger="absl")
    return caplog


def test_bytes_count_whole_bytes_of_codes_and_seven_a_channel():
    assert packed_bytes((3, 3, 3, 5), 3) == 51 + 35  # 405 bits in 51 bytes
    assert packed_bytes((10, 2), 8) == 20 + 14


def test_the_bits_fit_and_are_the_best_of_all(teacher):
    # With the bytes of 4 bits everywhere, of the 7^4 choices.
    budget = size_of(alike(4))
    found = chosen(teacher, budget)["weights"]
    assert size_of(found) <= budget
    costs = measure_sensitivity(
        teacher, list(KERNELS), range(2, 9), symmetric=False, seed=0
    )
    best = min(
        sum(costs[name][b - 2] for name, b in zip(KERNELS, bits, strict=True))
        for bits in itertools.product(range(2, 9), repeat=len(KERNELS))
        if size_of(dict(zip(KERNELS, bits, strict=True))) <= budget
    )
    assert sum(costs[name][b - 2] for name, b in found.items()) == pytest.approx(best)
    assert chosen(teacher, budget)["weights"] == found


@pytest.mark.parametrize("name", KERNELS)
def test_one_layer_alone_is_rounded(teacher, name):
    for symmetric, bits in ((True, 2), (False, 3)):
        found = rounded_alone(teacher, list(KERNELS), (bits,), symmetric=symmetric)
        changed = {layer: variables for layer, _, variables in found}[name]
        kernels = {n: np.asarray(changed["params"][n]["kernel"]) for n in KERNELS}
        for other, kernel in kernels.items():
            before = np.asarray(teacher.variables["params"][other]["kernel"])
            if other != name:
                np.testing.assert_array_equal(kernel, before)
                continue
            axes = tuple(range(kernel.ndim - 1))
            low, high = before.min(axes), before.max(axes)
            width = np.maximum(-low, high) if symmetric else high - low
            step = width / (2 ** (bits - 1) - 1 if symmetric else 2**bits - 1)
            # Half a step, and half more where the zero point was rounded.
            assert (np.abs(kernel - before) <= step * 1.0001).all()
            codes = np.ptp(np.round(kernel / step), axis=axes)
            assert (codes < 2**bits).all() and codes.max() >= 2**bits - 2


def test_sensitivities_fall_with_the_bits_to_a_quarter(teacher):
    found = measure_sensitivity(
        teacher, list(KERNELS), (4, 6, 8), symmetric=False, seed=0
    )
    for of_layer in found.values():
        ratios = np.asarray(of_layer[:-1]) / of_layer[1:]
        # 16 for two bits more, if the error of a weight is uniform in a step.
        assert (ratios > 5).all() and (ratios < 50).all()


def test_a_pass_compiles_once_for_all_layers_and_bits(teacher):
    network = teacher.with_layers(HeldLayers())
    measure_sensitivity(teacher, list(KERNELS), (2, 3), symmetric=False, seed=0)
    measure_sensitivity(teacher, list(KERNELS), range(2, 9), symmetric=False, seed=1)
    assert [each._cache_size() for each in make_passes(network)] == [1, 1]


def test_the_least_budget_that_is_named_gives_two_bits(teacher):
    settings = settings_for(1e-5)
    with pytest.raises(
        UserError, match=r"config\.quantizer\.budget_mb: got 1e-05"
    ) as e:
        refuse_small_budget(settings.quantizer, teacher)
    least = f"{size_of(alike(2)):.6f}"
    assert f"at least {least} MB" in str(e.value) and "2 bits" in str(e.value)
    assert chosen(teacher, float(least))["weights"] == alike(2)
    below = settings_for(float(least) - 1e-6)
    with pytest.raises(UserError, match="0 for no budget"):
        refuse_small_budget(below.quantizer, teacher)


def test_a_large_budget_gives_eight_bits_and_says_so_once(teacher, said, monkeypatch):
    monkeypatch.delattr(bit_budget, "measure_sensitivity")  # nothing to measure
    assert chosen(teacher, 1e300)["weights"] == alike(8)
    assert said.text.count("which holds 8 bits everywhere") == 1
    assert chosen(teacher, size_of(alike(8)))["weights"] == alike(8)


def test_layers_with_bits_of_their_own_keep_them_and_count(teacher, said):
    own = {"layers": (("conv2", 3), ("act1", 5)), "first_last_bits": 8}
    budget = size_of({"conv0": 8, "conv1": 4, "conv2": 3, "head": 8})
    found = chosen(teacher, budget, **own)
    assert found["weights"] == {"conv0": 8, "conv1": 4, "conv2": 3, "head": 8}
    assert found["activations"] == {"act0": 4, "act1": 5, "act2": 4}
    table = said.text.split("bits of the weights: ")[1]
    assert "given" in table and f"{budget:.6f}" in table
    for name, shape in KERNELS.items():
        assert any(
            line.split()[:2] == [name, str(int(np.prod(shape)))]
            for line in table.splitlines()
        )
    with pytest.raises(UserError, match=r"conv0 8, conv2 3, head 8 bits"):
        refuse_small_budget(settings_for(1e-4, **own).quantizer, teacher)


def test_all_layers_may_have_bits_of_their_own(teacher):
    own = {"layers": (("*", 3),)}
    assert chosen(teacher, size_of(alike(3)), **own)["weights"] == alike(3)
    with pytest.raises(UserError, match="budget_mb: got"):
        chosen(teacher, size_of(alike(3)) - 1e-6, **own)


def test_settings_with_chosen_bits_leave_nothing_open(teacher):
    settings = settings_for(size_of(alike(4)))
    once = with_weight_bits(settings, choose_bits_within(settings, teacher).bits)
    assert None not in fixed_weight_bits(once.quantizer, teacher).values()
    assert choose_bits_within(once, teacher).bits == {}
    assert once.quantizer.budget_mb == settings.quantizer.budget_mb
    assert dataclasses.replace(once, quantizer=settings.quantizer) == settings


def test_names_are_no_patterns_and_the_usual_bits_are_those_of_most_layers():
    found = with_weight_bits(QuantizationSettings(), {"conv[0]*": 3, "a": 2, "b": 2})
    assert found.quantizer.layers == (("conv[[]0][*]", 3), ("a", 2), ("b", 2))
    assert found.quantizer.weight_bits == 2


def test_weights_that_give_no_finite_logits_are_refused(teacher):
    params = {**teacher.variables["params"]}
    params["head"] = {**params["head"], "bias": np.full(3, np.inf, np.float32)}
    broken = dataclasses.replace(
        teacher, variables={**teacher.variables, "params": params}
    )
    with pytest.raises(UserError, match=r"not finite, with rounded weights of conv0"):
        choose_bits_within(settings_for(size_of(alike(4))), broken)


def test_without_a_budget_nothing_changes(teacher):
    settings = QuantizationSettings()
    refuse_small_budget(settings.quantizer, teacher)
    assert bits_by_layer(settings.quantizer, teacher)["weights"] == alike(4)
    called = called_layers(teacher.network, (1, 8, 8, 3))
    assert set(KERNELS) < {layer.name for layer in called}

"""The bits of a budget, held for a run that goes on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.classifier import Classifier, Normalisation, Record
from acq.export import load_quantized
from acq.layers.float import FloatLayers
from acq.quantization import bit_budget
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from acq.tasks.chosen_bits import NAME, hold_bits
from acq.tasks.evaluate import evaluate_run
from acq.tasks.quantize import quantize_run
from common.errors import UserError
from tests.acq.own_network import PlainNet
from tests.acq.quantize_config import make_config

BUDGET_MB = 0.0035
SETTINGS = QuantizationSettings(quantizer=QuantizerSettings(budget_mb=BUDGET_MB))


@pytest.fixture(scope="module")
def teacher():
    network = PlainNet(FloatLayers(), 3)
    return Classifier(
        network=network,
        variables=jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3))),
        record=Record(
            name="tests.acq.own_network:PlainNet",
            classes=3,
            image_size=8,
            normalisation=Normalisation(mean=(0.5,) * 3, std=(0.2,) * 3),
        ),
    )


@pytest.fixture
def measured(monkeypatch):
    """Counts the measurements, of which each prefers other layers."""
    counts = []

    def measure(teacher, layers, bits, **_):
        counts.append(1)
        favoured = layers[-1] if len(counts) == 1 else layers[1]
        return {
            n: [(9.0 if n == favoured else 1.0) * 4.0**-b for b in bits] for n in layers
        }

    monkeypatch.setattr(bit_budget, "measure_sensitivity", measure)
    return counts


def test_a_run_that_goes_on_has_the_bits_of_its_start(teacher, measured, tmp_path):
    first = hold_bits(SETTINGS, teacher, tmp_path)
    assert len(first.quantizer.layers) == 4
    stored = json.loads((tmp_path / NAME).read_text())
    assert stored["weights"] == dict(first.quantizer.layers)
    assert stored["sensitivity"].keys() == stored["weights"].keys()
    (tmp_path / "metrics.jsonl").write_text("{}")  # something is computed
    assert hold_bits(SETTINGS, teacher, tmp_path) == first
    assert len(measured) == 1
    (tmp_path / "metrics.jsonl").unlink()  # nothing is: the config may be another
    assert hold_bits(SETTINGS, teacher, tmp_path) != first
    assert len(measured) == 2


def test_without_a_budget_there_is_no_file(teacher, measured, tmp_path):
    settings = QuantizationSettings()
    assert hold_bits(settings, teacher, tmp_path) is settings
    assert not measured and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weights": {"conv0": 9}}', '{"weights": {"conv0": "4"}}'],
)
def test_a_damaged_file_is_refused(teacher, tmp_path, content):
    (tmp_path / NAME).write_text(content)
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(
        UserError, match=r"bits\.json: damaged, or not the bits of a run"
    ):
        hold_bits(SETTINGS, teacher, tmp_path)


@pytest.mark.slow
def test_a_run_with_a_budget_trains_stores_and_tells_its_bits(tmp_path):
    config = make_config(tmp_path)
    config.quantizer.budget_mb = BUDGET_MB
    config.quantizer.layers = "{'head': 8}"
    results = quantize_run(config, tmp_path / "run")
    bits = results["layer_bits"]["weights"]
    assert bits["head"] == 8 and len(set(bits.values())) > 1
    stored = json.loads((tmp_path / "run" / NAME).read_text())
    assert {**stored["weights"], "head": 8} == bits
    loaded = load_quantized(tmp_path / "run" / "export")
    assert loaded.manifest["layer_bits"] == results["layer_bits"]
    for name, n in bits.items():
        steps = np.asarray(loaded.variables["integers"][name]["kernel"]).astype(int)
        spread = np.ptp(steps, axis=tuple(range(steps.ndim - 1)))
        assert spread.max() == 2**n - 1  # of the channel that needs all codes
    # Evaluated by another command, from the export alone.
    found = evaluate_run(config, tmp_path / "run")
    assert found["quantized"]["kl"] == results["quantized"]["kl"]


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_costs_no_work(tmp_path):
    config = make_config(tmp_path)
    config.quantizer.budget_mb = 0.001
    with pytest.raises(UserError, match=r"config\.quantizer\.budget_mb: got 0\.001"):
        quantize_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()

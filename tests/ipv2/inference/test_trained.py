"""Exports, new and old: their description and their use."""

import json
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.inference.trained import describe_training, load_trained
from ipv2.tasks.exported import load_exported
from ipv2.training.denoiser import Flow, make_denoise
from ipv2.training.denoiser_spec import Sampling
from tests.ipv2.exports import config_of, export_network

TINY = {"name": "fm", "width": 8, "multipliers": (1,)}


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    export_network(folder, **TINY)
    return folder / "export"


def _without_flow(export):
    """Removes the sampler from the manifest, as in older exports."""
    path = export / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["flow"]
    path.write_text(json.dumps(manifest))


@pytest.mark.slow
def test_an_export_needs_no_recipe(tmp_path):
    apply, _ = export_network(tmp_path)
    trained = load_trained(tmp_path / "export")
    hu = np.random.default_rng(0).normal(0, 200, (1, 16, 16, 1)).astype(np.float32)
    result = make_denoise(trained.denoiser)(trained.variables, jnp.asarray(hu))
    # The compiled function sums in another order.
    np.testing.assert_allclose(result, apply(hu), rtol=0, atol=1e-2)
    assert np.std(result - hu[..., 0]) > 10
    assert trained.name == "cnn10" and "flow" not in trained.identity


@pytest.mark.slow
def test_a_flow_uses_the_sampler_of_its_export(flow):
    trained = load_trained(flow)
    assert isinstance(trained.denoiser, Flow) and trained.radius is None
    assert trained.identity["flow"] == {"sampler": "euler", "steps": 8}
    assert "euler in 8 steps" in trained.describe()
    heun = trained.sampled(Sampling(sampler="heun", steps=2))
    assert heun.denoiser.sampler == "heun" and heun.denoiser.steps == 2
    assert heun.variables is trained.variables
    assert heun.identity["flow"] == {"sampler": "heun", "steps": 2}


@pytest.mark.slow
def test_dropout_is_part_of_the_identity_if_it_is_on(flow):
    dropped = load_trained(flow).sampled(Sampling(dropout_in_evaluation=True))
    assert dropped.identity["flow"]["dropout_in_evaluation"] is True


@pytest.mark.slow
def test_an_older_flow_gets_the_recipes_sampler_and_logs_it(tmp_path, caplog):
    export_network(tmp_path, **TINY)
    _without_flow(tmp_path / "export")
    with caplog.at_level(logging.INFO, logger="absl"):
        trained = load_trained(tmp_path / "export")
    assert trained.spec.sampling == Sampling()
    assert "older export states no sampler; using euler in 8 steps" in caplog.text


def test_in_tasks_the_config_overrides_the_sampler_and_logs_it(flow, caplog):
    config = config_of("", "", **{"flow.steps": 3, "flow.sampler": "heun"})
    with caplog.at_level(logging.INFO, logger="absl"):
        trained = load_exported(config, flow)
    assert trained.spec.sampling == Sampling(sampler="heun", steps=3)
    assert "heun in 3 steps" in caplog.text and "euler in 8 steps" in caplog.text


@pytest.mark.slow
def test_in_tasks_a_regression_has_no_sampling(tmp_path):
    export_network(tmp_path)
    trained = load_exported(config_of("", ""), tmp_path / "export")
    assert trained.spec.sampling is None


def test_a_training_that_went_on_says_from_what():
    first = {"step": 600, "started_from": {"sha256": "0123456789abcdef"}}
    assert describe_training(first) == [
        "trained for 600 steps from the network 01234567"
    ]
    assert describe_training({"step": 7}) == ["trained for 7 steps"]

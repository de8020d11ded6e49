"""A denoiser's spec: through JSON and back, defaults, refusals."""

import json

import jax
import pytest

from configs import base_ipv2, ipv2_ffm, ipv2_redcnn
from ipv2.models import FLOWS, MODELS
from ipv2.tasks import settings
from ipv2.training.denoiser import Flow, Regression
from ipv2.training.denoiser_spec import DenoiserSpec, Sampling


def _through_json(spec):
    return DenoiserSpec.from_json(json.loads(json.dumps(spec.to_json())))


SPECS = [
    DenoiserSpec(name="redcnn", channels=3, attributes={"width": 4}),
    DenoiserSpec(name="nafnet", dtype="bfloat16", attributes={"decoder_blocks": [1]}),
    DenoiserSpec(
        name="fm",
        attributes={"width": 8, "multipliers": (1,), "time_scale": 1.0},
        sampling=Sampling(sampler="heun", steps=3, dropout_in_evaluation=True),
    ),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_spec_read_from_json_is_equal_and_creates_an_equal_denoiser(spec):
    again = _through_json(spec)
    assert again == spec and hash(again) == hash(spec)
    assert again.create() == spec.create()


def test_specs_that_differ_anywhere_are_not_equal():
    flow = SPECS[2]
    others = [
        DenoiserSpec(name="fm", attributes=flow.attributes, sampling=Sampling()),
        DenoiserSpec(name="ffm", attributes=flow.attributes, sampling=flow.sampling),
        DenoiserSpec(name="fm", attributes={"width": 8}, sampling=flow.sampling),
    ]
    assert all(other != flow for other in others)


def test_a_flow_has_the_sampler_and_time_scale_of_its_spec():
    made = SPECS[2].create()
    assert isinstance(made, Flow) and made.model.time_scale == 1.0
    assert (made.sampler, made.steps, made.dropout_in_evaluation) == ("heun", 3, True)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_config_s_denoiser_is_that_of_its_spec(name):
    config = ipv2_redcnn.get_config()
    config.model.name = name
    spec = settings.denoiser_spec(config)
    made = settings.denoiser(config)
    assert _through_json(spec) == spec and made == spec.create()
    assert isinstance(made, Flow if name in FLOWS else Regression)
    model = spec.to_json()["model"]
    assert model["name"] == name and "width" not in model and "remat" not in model
    assert list(model) == sorted(model)


def test_the_json_of_a_published_flow_is_complete():
    config = ipv2_ffm.get_config("published")
    assert settings.denoiser_spec(config).to_json() == {
        "model": {
            "name": "ffm",
            "dtype": "float32",
            "channels": 3,
            "remat": True,
            "multipliers": [1, 2, 4, 8],
            "time_scale": 1.0,
        },
        "unit": "HU/1000",
        "flow": {"sampler": "euler", "steps": 50, "dropout_in_evaluation": True},
    }


def test_a_manifest_without_sampler_gets_that_of_the_recipes():
    model = {"name": "fm", "dtype": "float32", "channels": 1}
    old = {"model": model, "unit": "HU/1000"}
    spec = DenoiserSpec.from_json(old)
    assert spec.sampling == Sampling() == settings.sampling(base_ipv2.get_base())


def test_unset_attributes_of_an_older_export_are_the_network_s_defaults():
    old = {"name": "cnn10", "dtype": "float32", "channels": 1}
    old |= {"width": 0, "remat": False}
    spec = DenoiserSpec.from_json({"model": old, "unit": "HU/1000"})
    assert spec == DenoiserSpec(name="cnn10")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "redcnn", "dtype": "float16"}, r"dtype: got 'float16', accepted: "),
        ({"name": "redcnn", "channels": 2}, "channels: got 2, accepted: an odd"),
        ({"name": "redcnn", "sampling": Sampling()}, "sampling: got .* with redcnn"),
        ({"name": "fm"}, "sampling: got None with fm"),
    ],
)
def test_a_spec_refuses_bad_values(fields, message):
    with pytest.raises(ValueError, match=message):
        DenoiserSpec(**fields)


def test_wrong_sampling_is_refused():
    with pytest.raises(ValueError, match=r"sampler: got 'rk4', accepted: .*euler"):
        Sampling(sampler="rk4")
    with pytest.raises(ValueError, match="steps: got 0, accepted: at least 1"):
        Sampling(steps=0)


def test_attributes_that_a_network_lacks_are_refused():
    spec = DenoiserSpec(name="cnn10", attributes={"depth": 3})
    with pytest.raises(ValueError, match=r"cnn10 has no \['depth'\]"):
        spec.create()


def test_batch_statistics_are_taken_over_all_devices():
    model = DenoiserSpec(name="dncnn").create_network()
    assert model.axis_name == "batch"
    shapes = jax.eval_shape(
        lambda: DenoiserSpec(name="dncnn").create().init(jax.random.key(0))
    )
    assert "batch_stats" in shapes

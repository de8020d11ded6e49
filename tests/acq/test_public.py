"""`import acq`: from arrays to a small network."""

import json
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

import acq
from acq.classifier import Record
from acq.export import load_quantized
from acq.layers.float import FloatLayers
from acq.models import create_network
from acq.quantization import in_memory
from acq.quantization.bit_budget import packed_bytes
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from acq.tasks.quantize import quantize_run
from acq.tasks.settings import task_settings
from acq.teacher.in_memory import given_classifier
from common.checkpoint import load_manifest
from common.errors import RunFailed, UserError
from tests.acq import foreign_state_dicts as theirs
from tests.acq.own_network import PlainNet
from tests.acq.quantize_config import CLASSES, make_config

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FEW = {
    "image_size": 16,
    "generator_steps": 3,
    "steps": 3,
    "batch_size": 8,
    "generator": acq.GeneratorSettings(width=4, latent=4, learning_rate=1e-3),
}


def trained(network):
    """Returns variables with statistics that no new network has."""
    return theirs.random_variables(network)


@pytest.fixture(scope="module")
def network():
    return PlainNet(FloatLayers(), CLASSES)


@pytest.fixture(scope="module")
def small(network):
    return acq.quantize(network, trained(network), mean=MEAN, std=STD, **FEW)


def images(count=4, dtype=np.uint8):
    values = np.random.default_rng(1).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return values if dtype == np.uint8 else (values / np.float32(255)).astype(dtype)


def test_names_are_there_and_importing_the_package_imports_little():
    assert set(acq.__all__) <= set(dir(acq))
    assert all(getattr(acq, name) is not None for name in acq.__all__)
    assert callable(acq.quantize) and acq.quantize.__module__.startswith("acq.")
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = acq.quantise
    said = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, acq, acq.kernels\n"
            "print([n for n in ('jax', 'flax', 'orbax', 'ml_collections')"
            " if n in sys.modules])",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert said == "[]\n"


@pytest.mark.slow
def test_the_same_integers_as_the_task_s(network, small, tmp_path):
    """The command reads the same weights from a file that this reads from memory."""
    names = {name: name for i in range(3) for name in (f"conv{i}", f"bn{i}")}
    tensors = theirs.tensors_of(trained(network), (names | {"head": "head"}).items())
    np.savez(tmp_path / "w.npz", **tensors)
    config = make_config(tmp_path)
    config.teacher.update(source="weights", weights=str(tmp_path / "w.npz"))
    config.eval.path, config.baselines.run = "", ()
    quantize_run(config, tmp_path / "run")
    small.save(tmp_path / "small")
    of_task, ours = (load_manifest(tmp_path / name) for name in ("run/export", "small"))
    for key in ("sha256", "quantizer", "layer_bits", "seed", "step", "kind"):
        assert of_task[key] == ours[key], key
    assert task_settings(config).quantization.train.steps == ours["step"]


@pytest.mark.slow
def test_options_of_the_quantizer_do_what_they_say(network, small):
    observed = {"range_source": "observed", "observe_steps": 2, "decay": 0.5}
    options = {"symmetric_weights": True, "gradient": "clipped", **observed}
    arguments = {"mean": MEAN, "std": STD, **FEW}
    found = acq.quantize(network, trained(network), **arguments, **options)
    stated = found.manifest["quantizer"]
    assert {key: stated[key] for key in options} == options
    # Around 0: signed integers, and no zero point but 0.
    for path, leaf in flatten_dict(found.variables).items():
        if path[-1] == "kernel":
            assert leaf.dtype == np.int8, path
    minmax = acq.quantize(network, trained(network), **arguments, range_method="minmax")
    apart = [float(np.ptp(one(images()) - small(images()))) for one in (found, minmax)]
    assert all(apart)


@pytest.mark.slow
def test_what_is_saved_is_what_is_loaded(small, network, tmp_path):
    small.save(tmp_path)
    for loaded in (acq.load_quantized(tmp_path), load_quantized(tmp_path, network)):
        assert loaded.record == small.record
        np.testing.assert_array_equal(loaded(images()), small(images()))
    # Once more from what was loaded.
    loaded.save(tmp_path / "again")
    assert (
        load_manifest(tmp_path)["sha256"] == load_manifest(tmp_path / "again")["sha256"]
    )


@pytest.mark.slow
def test_logits_are_the_network_s_of_normalised_images(small):
    x = (images(dtype=np.float32) - np.float32(MEAN)) / np.float32(STD)
    expected, _ = jax.jit(small.network.apply)(small.variables, x)
    found = small(images())
    assert found.shape == (4, CLASSES)
    # The same inputs but for the last bit, which moves a rounded value seldom.
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(found, small(images(dtype=np.float32)))
    np.testing.assert_array_equal(found, small(jnp.asarray(images())))
    within = jax.jit(lambda x: small(x))(images(dtype=np.float32))
    np.testing.assert_allclose(within, found, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (images()[0], r"got shape \(16, 16, 3\), accepted: \(n, 16, 16, 3\)"),
        (images()[..., :1], r"got shape \(4, 16, 16, 1\)"),
        (images()[:0], "at least one image"),
        (images().astype(np.int32), "got int32, accepted: uint8, or floats"),
        (images().astype(np.float32), r"floats from 0 to 255, accepted: from 0 to 1"),
        (images(dtype=np.float32) - 0.5, "floats from -0.5"),
        (np.full((1, 16, 16, 3), np.nan, np.float32), "floats from nan"),
    ],
)
def test_images_that_are_none_are_refused(small, given, said):
    with pytest.raises(UserError, match=said):
        small(given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight_bits": 9}, "weight_bits: got 9, accepted: a whole number, 2 to 8"),
        ({"activation_bits": 1}, "activation_bits: got 1"),
        ({"other_bits": 1}, "other_bits: got 1"),
        ({"layer_bits": {"head": 1}}, r"layer_bits\['head'\]: got 1"),
        ({"layer_bits": {"fc": 8}}, "fc"),
        ({"steps": 0}, "steps: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"batch_size": 7}, "batch_size: got 7"),
        ({"batch_size": 6}, "batch_size: got 6"),
        ({"mean": (0.5,)}, "one number per channel"),
        ({"std": (58.4, 57.1, 57.4)}, "divide by 255"),
        ({"image_size": None}, "image_size: needed for a module"),
        ({"image_size": 18}, "image_size: got 18, accepted: a multiple of 4"),
        ({"classes": 4}, "classes: got 4, the module has 3"),
        ({"student": acq.StudentSettings(kl_weight=0, hint_weight=0)}, "all 0"),
        ({"observe_steps": 0}, "observe_steps: got 0, accepted: a whole number, 1 to"),
        ({"decay": 1.1}, "decay: got 1.1, accepted: a number from 0 to 1"),
        ({"budget_mb": -1.0}, "budget_mb: got -1.0, accepted: a number, at least 0"),
        ({"budget_mb": float("nan")}, "budget_mb: got nan"),
        ({"budget_mb": True}, "budget_mb: got True"),
        ({"budget_mb": 1e-3}, r"^budget_mb: got 0.001, .* at least 0.00\d+ MB"),
    ],
)
def test_arguments_that_are_none_are_refused(network, changes, said):
    arguments = {"mean": MEAN, "std": STD, **FEW, **changes}
    with pytest.raises(UserError, match=said):
        acq.quantize(network, trained(network), **arguments)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("symmetric_weights", 2, "got 2, accepted: True, False"),
        ("gradient", "none", "got 'none', accepted: 'identity', 'clipped', 'learned'"),
        ("range_source", "real", "got 'real', accepted: 'observed', 'bn_statistics'"),
        ("range_method", "max", "got 'max', accepted: 'minmax', 'mse'"),
    ],
)
def test_values_of_another_type_are_refused(name, value, said):
    """Set behind the type checks, which only tests have."""
    settings = QuantizationSettings(quantizer=QuantizerSettings())
    assert in_memory._problems(settings) == []
    object.__setattr__(settings.quantizer, name, value)
    assert in_memory._problems(settings) == [f"{name}: {said}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer_bits": {"fc": 8}}, r"^layer_bits: got 'fc'"),
        ({"batch_size": 6}, r"^batch_size: got 6, accepted: a multiple of"),
        ({"batch_size": 7}, r"\n  batch_size: got 7, accepted: an even number"),
        ({"image_size": 18}, r"^image_size: got 18"),
        (
            {"generator": acq.GeneratorSettings(width=4, latent=3)},
            r"^generator\.latent: got 3, accepted with generator\.output='pixels'",
        ),
        (
            {"generator": acq.GeneratorSettings(width=4, latent=4, shift=16)},
            r"^generator\.shift: got 16",
        ),
        (
            {"generator": acq.GeneratorSettings(width=4, attention="grad_cam")},
            r"^generator\.attention: got 'grad_cam', but PlainNet",
        ),
    ],
)
def test_messages_name_arguments_and_no_config_keys(network, changes, said):
    arguments = {"mean": MEAN, "std": STD, **FEW, **changes}
    with pytest.raises(UserError, match=said) as refused:
        acq.quantize(network, trained(network), **arguments)
    assert not re.search(r"config\.|train\.|quantizer\.", str(refused.value))


@pytest.mark.slow
def test_bits_for_a_budget_are_those_of_the_export(network, tmp_path):
    """All but the head, which keeps its own, have the bits that were chosen."""
    options = {"mean": MEAN, "std": STD, **FEW, "layer_bits": {"head": 8}}
    found = acq.quantize(network, trained(network), budget_mb=0.0035, **options)
    bits = found.manifest["layer_bits"]["weights"]
    assert set(bits) == {"conv0", "conv1", "conv2", "head"} and bits["head"] == 8
    found.save(tmp_path / "small")
    again = load_quantized(tmp_path / "small")
    assert again.manifest["quantizer"]["budget_mb"] == 0.0035
    np.testing.assert_array_equal(again(images()), found(images()))
    for name, layer in again.variables["integers"].items():
        if name in bits:
            steps = np.asarray(layer["kernel"]).astype(int)
            spread = np.ptp(steps, axis=tuple(range(steps.ndim - 1)))
            assert spread.max() < 2 ** bits[name]
    # The packed file has the bytes that the budget counts.
    found.save_packed(tmp_path / "small.safetensors")
    packed = load_file(tmp_path / "small.safetensors")
    count = sum(
        array.nbytes
        for path, array in packed.items()
        if path.split("/")[0] in ("packed", "integers") and path.split("/")[1] in bits
    )
    shapes = {name: again.variables["integers"][name]["kernel"].shape for name in bits}
    assert count == sum(packed_bytes(shapes[name], n) for name, n in bits.items())
    assert 0.0030 < count / 1e6 <= 0.0035


def _given(network, variables, **changes):
    arguments = {"mean": MEAN, "std": STD, "image_size": 16, **changes}
    return given_classifier(network, variables, **arguments)


@pytest.mark.slow
def test_variables_of_another_or_of_a_new_network_are_refused(network):
    other = trained(PlainNet(FloatLayers(), CLASSES, width=4))
    with pytest.raises(UserError, match=r"bn0/mean: got \(4,\), the network has \(8,"):
        _given(network, other)
    new = trained(network)
    for layer in new["batch_stats"].values():
        layer.update(mean=0 * layer["mean"], var=0 * layer["var"] + 1)
    with pytest.raises(UserError, match="batch normalisation that was never trained"):
        _given(network, new)
    with pytest.raises(UserError, match="got nothing"):
        _given(network, {"params": trained(network)["params"]})


@pytest.mark.slow
def test_networks_are_known_by_their_name_or_their_class(network):
    by_name = _given("resnet8", trained(_zoo(10)), image_size=None)
    assert (by_name.record.classes, by_name.record.image_size) == (10, 32)
    with pytest.raises(UserError, match="network: got 'resnet9', accepted: resnet18"):
        _given("resnet9", {})
    wide = PlainNet(FloatLayers(), CLASSES, width=4)
    record = _given(wide, trained(wide)).record
    assert record.name == "tests.acq.own_network:PlainNet"
    assert record.options == {"width": 4}
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record

    class Other(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return x, x

    with pytest.raises(UserError, match="Other has no attributes layers and classes"):
        _given(Other(), {})


def _zoo(classes):
    return create_network("resnet8", FloatLayers(), classes)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_it(network):
    rates = acq.GeneratorSettings(width=4, latent=4, learning_rate=1e30)
    with pytest.raises(RunFailed, match=r"generator, step \d of 3: .* Lower the"):
        acq.quantize(
            network,
            trained(network),
            **{"mean": MEAN, "std": STD, **FEW, "generator": rates},
        )


@pytest.mark.slow
def test_it_is_quiet_unless_it_is_asked_not_to_be(network, capfd):
    arguments = {"mean": MEAN, "std": STD, **FEW}
    acq.quantize(network, trained(network), **arguments)
    assert capfd.readouterr() == ("", "")
    acq.quantize(network, trained(network), progress=True, **arguments)
    assert "student: 3/3 steps" in capfd.readouterr().err


@pytest.mark.slow
def test_exports_of_before_are_read(small, tmp_path):
    """Old exports hold durations and the layers' bits as texts."""
    small.save(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["quantizer"]["observe_steps"]
    manifest["quantizer"] |= {"observe": "4 epochs", "layers": ""}
    path.write_text(json.dumps(manifest))
    np.testing.assert_array_equal(
        acq.load_quantized(tmp_path)(images()), small(images())
    )
    del manifest["quantizer"]["weight_bits"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="not the manifest of a quantized"):
        acq.load_quantized(tmp_path)


class Outer:
    class Hidden(PlainNet):
        """A network that cannot be imported by name."""


@pytest.mark.slow
def test_a_network_that_cannot_be_imported_is_given_to_load_it(tmp_path):
    hidden = Outer.Hidden(FloatLayers(), CLASSES)
    found = acq.quantize(hidden, trained(hidden), mean=MEAN, std=STD, **FEW)
    found.save(tmp_path)
    with pytest.raises(UserError, match="no linen module 'Hidden'"):
        acq.load_quantized(tmp_path)
    again = acq.load_quantized(tmp_path, hidden)
    np.testing.assert_array_equal(again(images()), found(images()))

"""A made-up run: its results, an export of two layers, and where it ran."""

import copy
from datetime import UTC, datetime

import flax.linen as nn
import jax
import numpy as np

from acq.classifier import Normalisation, Record
from acq.export import QuantizedNetwork
from acq.kernels.grid import Grid
from acq.layers.float import Layers
from acq.layers.integer import IntegerLayers
from acq.report.compose import Circumstances

CHANNELS, CLASSES = 4, 5

RESULTS = {
    "bits": {"weight": 4, "activation": 3, "other": 32},
    "layer_bits": {
        "weights": {"conv": 4, "fc": 8},
        "activations": {"act": 3},
        "others": {},
    },
    "teacher": {
        "source": "net.npz",
        "sha256": "ab" * 32,
        "top1": 91.5,
        "correct": 183,
        "statistics": {"images": 200, "distance": 0.21, "worst_layers": {"bn1": 0.3}},
    },
    "quantized": {
        "top1": 89.5,
        "correct": 179,
        "best_top1": 90.0,
        "agreement": 95.5,
        "kl": 0.0754,
        "only_teacher_right": 8,
        "only_quantized_right": 4,
    },
    "baselines": {
        "noise": {
            "top1": 70.0,
            "correct": 140,
            "only_baseline_right": 1,
            "only_quantized_right": 40,
        },
        "generated": {
            "top1": 85.0,
            "correct": 170,
            "only_baseline_right": 3,
            "only_quantized_right": 12,
        },
        "real": {
            "top1": 88.0,
            "correct": 176,
            "only_baseline_right": 5,
            "only_quantized_right": 8,
        },
    },
    "samples": {"samples/finite": 1.0, "samples/center_r2": 0.625},
    "complaints": ["a class is dead"],
    "agreement_on_samples": 98.5,
    "seed": 7,
    "steps": 600,
    "seconds_per_step": 0.1234,
    "n": 200,
    "seconds": 93.1,
}

RECORD = Record(
    name="small",
    classes=CLASSES,
    image_size=8,
    normalisation=Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3),
    source="net.npz",
    sha256="ab" * 32,
)

CIRCUMSTANCES = Circumstances(
    title="run: small",
    data="images.npz",
    config='{"seed": 7}',
    version="0.1.0, commit 0123456789ab",
    machine="4 x cpu (cpu)",
    written=datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
)


class TwoLayers(nn.Module):
    layers: Layers
    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        x = make.activation("identity", name="input")(x)
        x = make.conv(CHANNELS, 3, padding=1, name="conv")(x)
        x = make.activation("relu", name="act")(make.batch_norm(name="bn")(x, train))
        return make.dense(self.classes, name="fc")(x.mean((1, 2))), x


class OneLayer(nn.Module):
    layers: Layers
    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        return self.layers.dense(self.classes, name="fc")(x.mean((1, 2))), x


def results(**changes):
    return copy.deepcopy(RESULTS) | changes


def without_images():
    left_out = ("n", "quantized", "baselines")
    found = {key: value for key, value in RESULTS.items() if key not in left_out}
    kept = {key: found["teacher"][key] for key in ("source", "sha256")}
    return found | {"teacher": kept, "quantized": {}, "baselines": {}}


def integers(other_bits=None):
    """Codes of `TwoLayers` whose ranges are known.

    Returns:
      conv: channel k has the codes -3 to 4 and the scale 0.1 (k + 1); 4 bits.
      fc: the codes 0 and 255, the zero point 127 and the scale 0.01; 8 bits.
      act: the scale 0.5 and the zero point 0; 3 bits.
    """
    kernel = np.zeros((3, 3, 3, CHANNELS), np.int8)
    kernel[0, 0, 0], kernel[2, 2, 2] = -3, 4
    dense = np.zeros((CHANNELS, CLASSES), np.uint8)
    dense[0] = 255
    found = {
        "conv": {
            "kernel": kernel,
            "scale": np.float32(0.1) * np.arange(1, CHANNELS + 1, dtype=np.float32),
            "zero_point": np.zeros(CHANNELS, np.int8),
        },
        "act": {"scale": np.float32(0.5), "zero_point": np.uint8(0)},
        "fc": {
            "kernel": dense,
            "scale": np.full(CLASSES, 0.01, np.float32),
            "zero_point": np.full(CLASSES, 127, np.uint8),
        },
    }
    if other_bits:
        found["input"] = {"scale": np.float32(0.02), "zero_point": np.uint8(100)}
    return found


def quantized(other_bits=None):
    """An export of `TwoLayers`, with zeros for all that is float."""
    network = TwoLayers(
        IntegerLayers(
            Grid(4), Grid(3), Grid(other_bits) if other_bits else None, (("fc", 8),)
        ),
        CLASSES,
    )
    return _export(network, integers(other_bits), other_bits)


def quantized_one_layer():
    network = OneLayer(IntegerLayers(Grid(8), Grid(8)), CLASSES)
    codes = np.ones((3, CLASSES), np.uint8)
    ones = np.ones(CLASSES, np.float32)
    fc = {"kernel": codes, "scale": ones, "zero_point": np.zeros(CLASSES, np.uint8)}
    return _export(network, {"fc": fc}, None)


def _export(network, codes, other_bits):
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    assert jax.tree.structure(zeros["integers"]) == jax.tree.structure(codes)
    manifest = {
        "quantizer": {
            "weight_bits": 4,
            "activation_bits": 3,
            "other_bits": other_bits or 0,
        },
        "layer_bits": RESULTS["layer_bits"],
        "seed": 7,
        "step": 600,
    }
    return QuantizedNetwork(
        network=network,
        variables={**zeros, "integers": codes},
        record=RECORD,
        manifest=manifest,
    )

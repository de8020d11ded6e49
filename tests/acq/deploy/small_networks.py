"""Small networks of integers with fitting ranges, and their ONNX models run."""

import functools

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

from acq.classifier import Classifier, Normalisation, Record
from acq.deploy.integer_ready import IntegerReady, make_integer_ready
from acq.export import QuantizedNetwork
from acq.kernels.grid import Grid
from acq.layers.float import FloatLayers
from acq.layers.integer import to_integers
from acq.layers.observed import RangeLayers, ranges_from_images
from acq.layers.quantized import Quantizer, QuantLayers
from tests.acq.models.small import random_variables
from tests.acq.quantized import CLASSES, create

SIZE = 20
"""Side of the images; the VGG enlarges its features of 5 pixels to 7."""

NORMALISATION = Normalisation(mean=(0.5, 0.45, 0.4), std=(0.3, 0.25, 0.2))


def record(name):
    return Record(
        name=name, classes=CLASSES, image_size=SIZE, normalisation=NORMALISATION
    )


def images(count, seed=0):
    """Returns images in [0, 1], NHWC: coarse squares and a little noise."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(
        rng.random((count, 4, 4, 3)), np.ones((1, SIZE // 4, SIZE // 4, 1))
    )
    return np.float32(0.8 * coarse + 0.2 * rng.random(coarse.shape))


def classifier_of(network, name):
    """Returns a network of floats as a classifier with random variables."""
    x = jnp.zeros(record(name).image_shape(1))
    return Classifier(
        network=network, variables=random_variables(network, x), record=record(name)
    )


def classifier(name):
    return classifier_of(create(name, FloatLayers()), name)


def quantized_of(teacher, bits, others=8, *, symmetric=False, own=()):
    """Returns a classifier as integers, with ranges that hold its images."""
    weights, rectifiers = Grid(bits, symmetric), Grid(bits)
    rest = None if others is None else Grid(others)
    x = NORMALISATION.normalise(jnp.asarray(images(64)))
    ranges = ranges_from_images(
        teacher.network,
        RangeLayers(activations=rectifiers, others=rest),
        teacher.variables,
        [x],
    )
    layers = QuantLayers(
        Quantizer(weights),
        Quantizer(rectifiers),
        None if rest is None else Quantizer(rest),
        own,
    )
    network, variables = to_integers(
        teacher.with_layers(layers), {**teacher.variables, "ranges": ranges}, x[:1]
    )
    quantizer = {
        "weight_bits": bits,
        "activation_bits": bits,
        "other_bits": others or 0,
        "symmetric_weights": symmetric,
        "gradient": "identity",
    }
    return QuantizedNetwork(
        network=network,
        variables=variables,
        record=teacher.record,
        manifest={
            "method": "acq",
            "kind": "quantized",
            "classifier": teacher.record.to_json(),
            "quantizer": quantizer,
            "layer_bits": {"weights": dict(own)},
        },
    )


@functools.cache
def quantized(name, bits, others=8, *, symmetric=False, own=()):
    """Returns a small network as integers."""
    return quantized_of(classifier(name), bits, others, symmetric=symmetric, own=own)


@functools.cache
def ready(name, bits) -> IntegerReady:
    return make_integer_ready(quantized(name, bits))


def session(model, *, optimised=True, path=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if path is not None:
        options.optimized_model_filepath = str(path)
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    given = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(
        given, options, providers=["CPUExecutionProvider"]
    )


def logits(model, batch, *, optimised=True):
    """Returns what onnxruntime computes of images NHWC."""
    channels_first = np.ascontiguousarray(np.moveaxis(batch, -1, 1))
    return session(model, optimised=optimised).run(None, {"images": channels_first})[0]


def optimised_operators(model, folder):
    """Returns the operators that onnxruntime makes of a model, one name a node."""
    path = folder / "optimised.onnx"
    session(model, path=path)
    return [node.op_type for node in onnx.load(path).graph.node]

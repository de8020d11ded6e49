"""A classifier as an ONNX model: of floats, or of integers as Q/DQ pairs.

The input `images` is float32 (batch, channels, height, width) in [0, 1]; normalisation
is part of the model. The output `logits` is float32 (batch, classes).
"""

import flax.linen as nn
import onnx

from acq.classifier import Classifier, Record
from acq.deploy.graph import INPUT
from acq.deploy.layers import add_layer
from acq.deploy.plain import add_plain
from acq.deploy.trace import BATCH, Step, trace_network
from acq.deploy.values import NCHW, Tensor
from acq.deploy.writer import Writer
from acq.export import QuantizedNetwork
from common.typing import PyTree


def float_model(classifier: Classifier) -> onnx.ModelProto:
    """Returns a float classifier as ONNX, its batch normalisations folded.

    Raises:
      UserError: the network has an operation that cannot be exported.
    """
    return _model(classifier.network, classifier.variables, classifier.record, "float")


def integer_model(small: QuantizedNetwork) -> onnx.ModelProto:
    """Returns a quantized network as ONNX.

    Args:
      small: with quantizers on all inputs and outputs of its convolutions.

    Raises:
      UserError: the network has an operation that cannot be exported, or a convolution
        whose input or output is float.
    """
    return _model(small.network, small.variables, small.record, "quantized")


def _model(
    network: nn.Module, variables: PyTree, record: Record, kind: str
) -> onnx.ModelProto:
    trace = trace_network(network, variables, record)
    writer = Writer(variables)
    shape = record.image_shape(BATCH)
    writer.values[trace.images] = Tensor(INPUT, NCHW, shape)
    for step in trace.steps:
        add = add_plain if step.layer is None else add_layer
        writer.values[step.output] = add(writer, step)
    end = Step("the logits", (trace.logits,), -1, (), {})
    logits = writer.ordered(writer.floats(trace.logits, end), (0, 1))
    size, channels = record.image_size, record.channels
    return writer.graph.model(
        logits.name,
        (channels, size, size),
        record.classes,
        f"{record.name}, {kind}: images in [0, 1], channels first",
    )

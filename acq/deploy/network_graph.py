"""A classifier as a graph: of floats, or of integers as pairs of Q and DQ.

The input `images` is float32 (batch, channels, height, width) in [0, 1]; normalisation
is part of the graph. The output `logits` is float32 (batch, classes).
"""

import flax.linen as nn

from acq.classifier import Classifier, Record
from acq.deploy.graph import INPUT, ClassifierGraph
from acq.deploy.layers import add_layer
from acq.deploy.trace import trace_network
from acq.deploy.writer import ClassifierWriter
from acq.export import QuantizedNetwork
from common.onnx.plain import add_plain
from common.onnx.values import NCHW, Tensor
from common.onnx.walk import BATCH, Step
from common.typing import PyTree


def float_graph(classifier: Classifier) -> ClassifierGraph:
    """Returns a float classifier as a graph, its batch normalisations folded.

    Raises:
      UserError: the network has an operation that cannot be exported.
    """
    return _graph(classifier.network, classifier.variables, classifier.record)


def integer_graph(small: QuantizedNetwork) -> ClassifierGraph:
    """Returns a quantized network as a graph.

    Args:
      small: with quantizers on all inputs and outputs of its convolutions.

    Raises:
      UserError: the network has an operation that cannot be exported, or a convolution
        whose input or output is float.
    """
    return _graph(small.network, small.variables, small.record)


def _graph(network: nn.Module, variables: PyTree, record: Record) -> ClassifierGraph:
    trace = trace_network(network, variables, record)
    writer = ClassifierWriter(variables)
    writer.values[trace.images] = Tensor(INPUT, NCHW, record.image_shape(BATCH))
    for step in trace.steps:
        add = add_plain if step.layer is None else add_layer
        writer.values[step.output] = add(writer, step)
    end = Step("the logits", (trace.logits,), -1, (), {})
    logits = writer.ordered(writer.floats(trace.logits, end), (0, 1))
    writer.graph.finish(logits.name)
    return writer.classifier_graph

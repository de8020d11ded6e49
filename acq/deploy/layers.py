"""Each kind of layer as ONNX nodes.

A quantized activation is QuantizeLinear and a Clip of the codes, to the grid's codes
and to those that the rectifier leaves. Only in this form does onnxruntime make a
QLinearConv of each convolution: a Clip of floats before it would leave them all float.
Rounding is monotonic, so min and max may follow it.

Codes of a symmetric grid are negative, too; 128 is added to them and to the zero point.
"""

import numpy as np

from acq.deploy.kernels import codes_constants
from acq.deploy.trace import (
    ActivationLayer,
    ConvLayer,
    DenseLayer,
    NormLayer,
)
from acq.deploy.values import Affine, Value
from acq.deploy.writer import ClassifierWriter
from acq.kernels.grid import Grid
from acq.layers.operations import ActivationKind
from common.errors import UserError
from common.onnx.values import NCHW, Codes, Tensor
from common.onnx.walk import Step

_OFFSET = 128


def add_layer(writer: ClassifierWriter, step: Step) -> Value:
    """Returns the result of a layer.

    Raises:
      UserError: the layer cannot be exported.
    """
    match step.layer:
        case ConvLayer() | DenseLayer():
            return _affine(writer, step, step.layer)
        case NormLayer():
            return _norm(writer, step, step.layer)
        case ActivationLayer(_, kind, None):
            return _float_activation(writer, step, kind)
        case ActivationLayer(name, kind, Grid() as grid):
            return _quantized(writer, step, name, kind, grid)
    raise TypeError(f"not a layer: {step}")


def _affine(
    writer: ClassifierWriter, step: Step, layer: ConvLayer | DenseLayer
) -> Affine:
    x = writer.tensor(step.inputs[0], step)
    is_conv = isinstance(layer, ConvLayer)
    if len(x.shape) != (4 if is_conv else 2):
        raise UserError(
            f"{layer.name}: its input has {len(x.shape)} axes, accepted: "
            f"{4 if is_conv else 2}"
        )
    x = writer.ordered(x, NCHW if is_conv else (0, 1))
    features = step.shape[-1]
    zeros = np.zeros(features, np.float32)
    bias = writer.variables.get(f"params/{layer.name}/bias", zeros)
    return Affine(layer, x, np.ones(features, np.float32), bias, step.shape)


def _norm(writer: ClassifierWriter, step: Step, layer: NormLayer) -> Value:
    scale, bias, mean, var = (
        writer.variables[f"{leaf}"]
        for leaf in (
            *(f"params/{layer.name}/{part}" for part in ("scale", "bias")),
            *(f"batch_stats/{layer.name}/{part}" for part in ("mean", "var")),
        )
    )
    factor = scale / np.sqrt(var + np.float32(layer.epsilon))
    shift = bias - mean * factor
    before = writer.value(step.inputs[0])
    if isinstance(before, Affine):
        return before._replace(
            factor=before.factor * factor,
            shift=before.shift * factor + shift,
            norm=layer.name,
        )
    x = writer.floats(step.inputs[0], step)
    shape = [1] * len(x.shape)
    shape[x.place(len(x.shape) - 1)] = -1
    name = x.name
    for kind, values in (("Mul", factor), ("Add", shift)):
        constant = writer.graph.constant(
            values.astype(np.float32).reshape(shape), f"{layer.name}/{kind}"
        )
        name = writer.graph.node(kind, [name, constant], f"{layer.name}/{kind}ed")
    return x._replace(name=name)


def _float_activation(
    writer: ClassifierWriter, step: Step, kind: ActivationKind
) -> Value:
    assert step.layer is not None
    if kind == "identity":
        return writer.value(step.inputs[0])
    x = writer.floats(step.inputs[0], step)
    if kind == "relu":
        return x._replace(name=writer.graph.node("Relu", [x.name], step.layer.name))
    ends = [writer.graph.constant(np.float32(end), "end") for end in (0, 6)]
    return x._replace(name=writer.graph.node("Clip", [x.name, *ends], step.layer.name))


def _quantized(
    writer: ClassifierWriter, step: Step, name: str, kind: ActivationKind, grid: Grid
) -> Tensor:
    x = writer.floats(step.inputs[0], step)
    scale = np.float32(writer.variables[f"integers/{name}/scale"])
    zero_point = int(writer.variables[f"integers/{name}/zero_point"])
    lowest, highest = grid.qmin, grid.qmax
    if kind != "identity":
        lowest = max(lowest, zero_point)
    if kind == "relu6":
        steps = np.rint(np.float32(6) * (np.float32(1) / scale))
        highest = min(highest, int(steps) + zero_point)
    offset = _OFFSET if grid.symmetric else 0
    lowest, highest = lowest + offset, highest + offset
    codes = Codes(float(scale), zero_point + offset, highest)
    codes_name = _rounded(writer, x, codes, name)
    if (lowest, highest) != (0, 255):
        ends = [
            writer.graph.constant(np.uint8(end), "code") for end in (lowest, highest)
        ]
        codes_name = writer.graph.node("Clip", [codes_name, *ends], f"{name}/clipped")
    return x._replace(name=codes_name, codes=codes, has_halves=False)


def _rounded(writer: ClassifierWriter, x: Tensor, codes: Codes, name: str) -> str:
    """Returns the name of the codes of floats, from 0 to 255."""
    graph, floats, rounded = writer.graph, x.name, codes
    if x.has_halves:
        # The quotient of `acq.kernels.grid.quantize`, so that halves go the same way.
        factor = graph.constant(np.float32(1) / np.float32(codes.scale), "factor")
        floats = graph.node("Mul", [x.name, factor], f"{name}/steps")
        rounded = codes._replace(scale=1.0)
    constants = codes_constants(graph, rounded)
    return graph.node("QuantizeLinear", [floats, *constants], name)

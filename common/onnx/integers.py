"""A graph of floats whose marked convolutions are computed with integers.

A marked convolution takes codes: QuantizeLinear, Clip for fewer than 8 bits, and
DequantizeLinear stand where its input was marked. Its kernel is int8 with a scale for
each output channel. Sums and products of channels that follow it, such as batch
normalisation, go into those scales and into its bias, which is int32 in steps of the
input's scale times the weight's.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from common.errors import UserError
from common.image_network import Rounding
from common.onnx.dequantized import add_bias, add_kernel
from common.onnx.graph import Graph, Node
from common.onnx.values import Tensor
from common.onnx.walk import Step
from common.onnx.writer import Writer

_MARK = "convolution/"

# Operations that move values: a convolution's input may pass them after its mark.
_MOVING = frozenset({"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})
_CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}  # the axis of output channels
# The largest code of a bias, so that the sum with it fits into int32.
_LARGEST_BIAS = 1 << 30


def mark_of(name: str) -> str:
    """Returns the name by which a trace marks the input of a convolution."""
    return _MARK + name


def add_mark(writer: Writer, step: Step) -> Tensor | None:
    """Returns a marked tensor as a node of its own; None for another step."""
    if step.kind != "name" or not step.params["name"].startswith(_MARK):
        return None
    x = writer.floats(step.inputs[0], step)
    return x._replace(name=writer.graph.node("Identity", [x.name], step.params["name"]))


def with_integers(graph: Graph, roundings: Mapping[str, Rounding]) -> Graph:
    """Returns the graph with integers in its marked convolutions.

    Args:
      graph: finished, of a network whose kernels have their rounded values.
      roundings: of each marked convolution, by name.

    Raises:
      UserError: a marked input reaches no convolution, or several, or a convolution
        has no rounding.
    """
    return _Rewriting(graph, roundings).graph


class _Rewriting:
    """The new graph, node by node."""

    def __init__(self, before: Graph, roundings: Mapping[str, Rounding]) -> None:
        self.graph = Graph(before.input, before.output)
        self._before, self._roundings = before, roundings
        self._made = {node.output: node for node in before.nodes}
        self._takers: dict[str, list[Node]] = {}
        for node in before.nodes:
            for name in node.inputs:
                self._takers.setdefault(name, []).append(node)
        self._names = {before.input: before.input}
        self._folded: set[str] = set()
        found = [self._mark_before(node) for node in before.nodes]
        self._refuse_unless_one_each([name for name in found if name is not None])
        for node in before.nodes:
            if node.output not in self._folded:
                self._add(node)

    def _refuse_unless_one_each(self, found: Sequence[str]) -> None:
        wrong = sorted(
            name for name in self._roundings if list(found).count(name) != 1
        ) + sorted(set(found) - set(self._roundings))
        if wrong:
            raise UserError(
                f"{', '.join(wrong)}: cannot be computed with integers: its input must "
                "reach one convolution, which only moves of values may come before"
            )

    def _mark_before(self, node: Node) -> str | None:
        """Returns the name of the marked convolution that a node is."""
        if node.kind not in _CONVOLUTIONS:
            return None
        before = self._made.get(node.inputs[0])
        while before is not None and before.kind in _MOVING:
            if _is_mark(before):
                return _name_of(before)
            before = self._made.get(before.inputs[0])
        return None

    def _add(self, node: Node) -> None:
        if node.output == self._before.output:
            self.graph.finish(self._name(node.inputs[0]))
        elif _is_mark(node):
            rounding = self._roundings[_name_of(node)]
            self._names[node.output] = self._rounded(node, rounding)
        elif (name := self._mark_before(node)) is not None:
            self._add_convolution(node, self._roundings[name])
        else:
            inputs = [self._name(name) for name in node.inputs]
            self._names[node.output] = self.graph.node(
                node.kind, inputs, node.output, **node.attributes
            )

    def _name(self, name: str) -> str:
        if name in self._before.constants and name not in self._names:
            values = self._before.constants[name]
            self._names[name] = self.graph.constant(values, name)
        return self._names[name]

    def _rounded(self, node: Node, rounding: Rounding) -> str:
        """Returns the name of a marked input, rounded."""
        graph, name = self.graph, _name_of(node)
        ends = (
            _input_scale(graph, rounding),
            graph.constant(np.uint8(rounding.zero_point), "zero_point"),
        )
        x = self._name(node.inputs[0])
        codes = graph.node("QuantizeLinear", [x, *ends], f"{name}/codes")
        if rounding.highest < 255:
            limits = [
                graph.constant(np.uint8(end), "code") for end in (0, rounding.highest)
            ]
            codes = graph.node("Clip", [codes, *limits], f"{name}/clipped")
        return graph.node("DequantizeLinear", [codes, *ends], f"{name}/input")

    def _add_convolution(self, node: Node, rounding: Rounding) -> None:
        graph, axis = self.graph, _CONVOLUTIONS[node.kind]
        kernel = self._before.constants[node.inputs[1]]
        channels = kernel.shape[axis]
        factor, shift, last = self._affine_after(node, channels)
        # A transposed convolution of patches has each channel once for each pixel.
        scale = np.resize(rounding.weight_scale, channels)
        codes, scale = _weight_codes(kernel, scale, axis)
        codes, scale, bias = _folded(codes, scale, factor, shift, rounding.scale, axis)
        name = node.output
        kernel_floats, kernel_scale = add_kernel(
            graph, codes, scale, f"{name}/kernel", axis
        )
        inputs = [self._name(node.inputs[0]), kernel_floats]
        if np.any(bias):
            step = _input_scale(graph, rounding)
            inputs.append(add_bias(graph, bias, step, kernel_scale, f"{name}/bias"))
        self._names[last] = graph.node(node.kind, inputs, name, **node.attributes)

    def _affine_after(
        self, node: Node, channels: int
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """Returns factor and shift of channels after a node, and what they end in."""
        factor, shift = np.ones(channels), np.zeros(channels)
        last = node.output
        while (step := self._only_taker(last)) is not None:
            values = self._channel_values(step, last, channels)
            if values is None:
                break
            if step.kind == "Mul":
                factor, shift = factor * values, shift * values
            else:
                shift = shift + values
            last = step.output
            self._folded.add(last)
        return factor, shift, last

    def _only_taker(self, name: str) -> Node | None:
        takers = self._takers.get(name, [])
        return takers[0] if len(takers) == 1 else None

    def _channel_values(
        self, step: Node, taken: str, channels: int
    ) -> np.ndarray | None:
        """Returns what a sum or product gives each channel; None if it is another."""
        others = [name for name in step.inputs if name != taken]
        if step.kind not in ("Add", "Mul") or len(others) != 1:
            return None
        values = self._before.constants.get(others[0])
        if values is None or values.shape not in ((), (1, channels, 1, 1)):
            return None
        return np.broadcast_to(values.reshape(-1).astype(np.float64), (channels,))


def _is_mark(node: Node) -> bool:
    return node.kind == "Identity" and node.output.startswith(_MARK)


def _name_of(mark: Node) -> str:
    return mark.output.removeprefix(_MARK)


def _input_scale(graph: Graph, rounding: Rounding) -> str:
    return graph.constant(np.float32(rounding.scale), "scale")


def _weight_codes(
    kernel: np.ndarray, scale: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes of a rounded kernel, as floats, and their scales."""
    shape = [1] * kernel.ndim
    shape[axis] = -1
    codes = kernel.astype(np.float64) / scale.reshape(shape)
    assert np.abs(codes - np.rint(codes)).max() < 0.01, "the kernel is not rounded"
    return np.rint(codes), scale.astype(np.float64)


def _folded(
    codes: np.ndarray,
    scale: np.ndarray,
    factor: np.ndarray,
    shift: np.ndarray,
    input_scale: float,
    axis: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns int8 codes, their scales and the int32 codes of a bias.

    A channel of factor 0 gets codes of 0. One whose bias would not fit into int32 gets
    a larger scale: its weights are too small to count beside that bias.
    """
    shape = [1] * codes.ndim
    shape[axis] = -1
    signed = codes * np.sign(factor).reshape(shape)
    wanted = np.where(factor == 0, scale, scale * np.abs(factor))
    least = np.abs(shift) / (input_scale * _LARGEST_BIAS)
    # float32, as the file has them, before the bias is divided by them.
    used = np.maximum(wanted, least).astype(np.float32)
    signed = np.rint(signed * (wanted / used).reshape(shape))
    step = (np.float32(input_scale) * used).astype(np.float64)
    return signed.astype(np.int8), used, np.rint(shift / step).astype(np.int32)

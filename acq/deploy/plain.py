"""Plain JAX between the layers of a network, as ONNX nodes.

Operations that only move values, and maxima, stay among the codes of a quantized
tensor, because they commute with rounding.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from acq.deploy.trace import BATCH, Step
from acq.deploy.values import NCHW, Summed, Tensor, Value
from acq.deploy.writer import Writer
from common.errors import UserError

_ELEMENTWISE = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
}


def add_plain(writer: Writer, step: Step) -> Value:
    """Returns the result of an operation between layers.

    Raises:
      UserError: the operation cannot be exported; the message lists those that can.
    """
    if step.kind not in PLAIN:
        raise UserError(
            f"the operation {step.kind!r} between layers cannot be exported; accepted: "
            f"layers made by `layers`, and {', '.join(sorted(PLAIN))}. Rewrite that "
            "part of the network."
        )
    return PLAIN[step.kind](writer, step)


def _refuse(step: Step, reason: str) -> UserError:
    return UserError(
        f"the operation {step.kind!r} to the shape {step.shape} between layers cannot "
        f"be exported: {reason}"
    )


def _same(writer: Writer, step: Step) -> Value:
    return writer.value(step.inputs[0])


def _converted(writer: Writer, step: Step) -> Value:
    if step.params["new_dtype"] != np.float32:
        raise _refuse(step, f"it makes {step.params['new_dtype']} of float32")
    return _same(writer, step)


def _elementwise(writer: Writer, step: Step) -> Tensor | Value:
    first, second = map(writer.value, step.inputs)
    if step.kind == "div" and isinstance(first, Summed):
        is_mean = isinstance(second, np.ndarray) and np.all(second == first.count)
        if is_mean:
            return writer.reduced(first, "ReduceMean")
    given = [
        value if isinstance(value, np.ndarray) else writer.floats(number, step)
        for value, number in zip((first, second), step.inputs, strict=True)
    ]
    orders = [value.order for value in given if isinstance(value, Tensor)]
    order = orders[0] if orders else tuple(range(len(step.shape)))
    names = [_operand(writer, value, order) for value in given]
    name = writer.graph.node(_ELEMENTWISE[step.kind], names, step.kind)
    return Tensor(name, order, step.shape)


def _operand(writer: Writer, value: Tensor | np.ndarray, order: tuple[int, ...]) -> str:
    """Returns the name of an operand whose axes have an order."""
    if isinstance(value, Tensor):
        return writer.ordered(value, order).name
    values = value.transpose(order) if value.ndim else value
    return writer.graph.constant(values.astype(np.float32), "constant")


def _sum(writer: Writer, step: Step) -> Summed:
    x = writer.floats(step.inputs[0], step)
    axes = tuple(step.params["axes"])
    if 0 in axes:
        raise _refuse(step, "it adds images of a batch")
    return Summed(x, axes, math.prod(x.shape[axis] for axis in axes), step.shape)


def _greatest(writer: Writer, step: Step) -> Tensor:
    x = writer.tensor(step.inputs[0], step)
    axes = tuple(step.params["axes"])
    if 0 in axes:
        raise _refuse(step, "it compares images of a batch")
    found = writer.reduced(Summed(x, axes, 1, step.shape), "ReduceMax")
    return found._replace(codes=x.codes)


def _transpose(writer: Writer, step: Step) -> Tensor:
    x = writer.tensor(step.inputs[0], step)
    permutation = tuple(step.params["permutation"])
    order = tuple(permutation.index(axis) for axis in x.order)
    return x._replace(order=order, shape=step.shape)


def _reshape(writer: Writer, step: Step) -> Value:
    value = writer.value(step.inputs[0])
    if isinstance(value, np.ndarray):
        return value.reshape(step.shape)
    x = writer.tensor(step.inputs[0], step)
    x = writer.ordered(x, tuple(range(len(x.shape))))
    if x.shape[:1] != step.shape[:1] or step.shape[:1] != (BATCH,):
        raise _refuse(step, "it mixes images of a batch")
    shape = writer.graph.constant(np.array([0, *step.shape[1:]], np.int64), "shape")
    name = writer.graph.node("Reshape", [x.name, shape], f"{x.name}/reshaped")
    return x._replace(name=name, order=tuple(range(len(step.shape))), shape=step.shape)


def _broadcast(writer: Writer, step: Step) -> Value:
    value = writer.value(step.inputs[0])
    kept = tuple(step.params["broadcast_dimensions"])
    if isinstance(value, np.ndarray):
        # Sides of 1 suffice: what takes it broadcasts it.
        shape = [1] * len(step.shape)
        for axis, side in zip(kept, value.shape, strict=True):
            shape[axis] = side
        return value.reshape(shape)
    x = writer.tensor(step.inputs[0], step)
    if math.prod(x.shape) != math.prod(step.shape):
        raise _refuse(step, "it repeats values")
    return _reshape(writer, step)


def _concatenate(writer: Writer, step: Step) -> Tensor:
    tensors = [writer.tensor(number, step) for number in step.inputs]
    if len({tensor.codes for tensor in tensors}) > 1:
        tensors = [writer.floats(number, step) for number in step.inputs]
    first = tensors[0]
    axis = step.params["dimension"]
    if axis == 0:
        raise _refuse(step, "it joins images of a batch")
    names = [writer.ordered(tensor, first.order).name for tensor in tensors]
    name = writer.graph.node("Concat", names, "concatenated", axis=first.place(axis))
    return first._replace(name=name, shape=step.shape)


def _slice(writer: Writer, step: Step) -> Tensor:
    x = writer.tensor(step.inputs[0], step)
    strides = step.params["strides"] or (1,) * len(x.shape)
    cut = [
        (start, end, x.place(axis), stride)
        for axis, (start, end, stride) in enumerate(
            zip(
                step.params["start_indices"],
                step.params["limit_indices"],
                strides,
                strict=True,
            )
        )
        if (start, end, stride) != (0, x.shape[axis], 1)
    ]
    if not cut:
        return x
    if any(place == x.place(0) for _, _, place, _ in cut):
        raise _refuse(step, "it takes some images of a batch")
    inputs = [
        writer.graph.constant(np.array(values, np.int64), name)
        for name, values in zip(
            ("starts", "ends", "axes", "steps"), zip(*cut, strict=True), strict=True
        )
    ]
    name = writer.graph.node("Slice", [x.name, *inputs], f"{x.name}/sliced")
    return x._replace(name=name, shape=step.shape)


def _pad(writer: Writer, step: Step) -> Tensor:
    filling = writer.value(step.inputs[1])
    config = step.params["padding_config"]
    if not isinstance(filling, np.ndarray) or any(
        low < 0 or high < 0 or inside for low, high, inside in config
    ):
        raise _refuse(step, "it cuts, spreads, or pads with values that are computed")
    x = writer.tensor(step.inputs[0], step)
    if x.codes is not None and filling == 0:
        value = np.uint8(x.codes.zero_point)
    else:
        x, value = writer.floats(step.inputs[0], step), np.float32(filling)
    if not any(low or high for low, high, _ in config):
        return x
    inputs = [
        writer.graph.constant(
            np.array(
                [config[axis][end] for end in (0, 1) for axis in x.order], np.int64
            ),
            "pads",
        ),
        writer.graph.constant(value, "padding"),
    ]
    name = writer.graph.node("Pad", [x.name, *inputs], f"{x.name}/padded")
    return x._replace(name=name, shape=step.shape)


def _window(writer: Writer, step: Step, x: Tensor, kind: str, **attributes) -> Tensor:
    """Returns a pool of images."""
    params = step.params
    window, strides, padding = (
        params[f"window_{key}"] if key != "padding" else params[key]
        for key in ("dimensions", "strides", "padding")
    )
    whole = all(
        params[key] == (1, 1, 1, 1) for key in ("base_dilation", "window_dilation")
    )
    outside = [(window[axis], strides[axis], padding[axis]) for axis in (0, 3)]
    if len(x.shape) != 4 or not whole or set(outside) != {(1, 1, (0, 0))}:
        raise _refuse(step, "it is no pool over height and width")
    x = writer.ordered(x, NCHW)
    name = writer.graph.node(
        kind,
        [x.name],
        f"{x.name}/pooled",
        kernel_shape=list(window[1:3]),
        strides=list(strides[1:3]),
        pads=[padding[axis][end] for end in (0, 1) for axis in (1, 2)],
        **attributes,
    )
    return x._replace(name=name, shape=step.shape)


def _max_pool(writer: Writer, step: Step) -> Tensor:
    return _window(writer, step, writer.tensor(step.inputs[0], step), "MaxPool")


def _sum_pool(writer: Writer, step: Step) -> Tensor:
    x = writer.floats(step.inputs[0], step)
    means = _window(writer, step, x, "AveragePool", count_include_pad=1)
    count = math.prod(step.params["window_dimensions"])
    factor = writer.graph.constant(np.float32(count), "constant")
    return means._replace(
        name=writer.graph.node("Mul", [means.name, factor], f"{means.name}/sum")
    )


def _product(writer: Writer, step: Step) -> Tensor:
    (left, right), batched = step.params["dimension_numbers"]
    matrix = writer.value(step.inputs[1])
    one_axis = len(left) == len(right) == 1
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or not one_axis:
        raise _refuse(step, "it is no product with a constant matrix")
    if any(batched) or left[0] == 0:
        raise _refuse(step, "it mixes images of a batch")
    x = writer.floats(step.inputs[0], step)
    rest = [axis for axis in x.order if axis != left[0]]
    x = writer.ordered(x, (*rest, left[0]))
    constant = writer.graph.constant(
        np.moveaxis(matrix, right[0], 0).astype(np.float32), "matrix"
    )
    name = writer.graph.node("MatMul", [x.name, constant], f"{x.name}/product")
    # The new axis is the last in the network, and here.
    order = (*(sorted(rest).index(axis) for axis in rest), len(rest))
    return Tensor(name, order, step.shape, has_halves=True)


PLAIN: Mapping[str, Callable[[Writer, Step], Value]] = MappingProxyType(
    {
        **dict.fromkeys(_ELEMENTWISE, _elementwise),
        **dict.fromkeys(("name", "copy", "stop_gradient"), _same),
        **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
        "broadcast_in_dim": _broadcast,
        "concatenate": _concatenate,
        "convert_element_type": _converted,
        "dot_general": _product,
        "pad": _pad,
        "reduce_max": _greatest,
        "reduce_sum": _sum,
        "reduce_window_max": _max_pool,
        "reduce_window_sum": _sum_pool,
        "slice": _slice,
        "transpose": _transpose,
    }
)
"""Operations of JAX by the names of their primitives."""

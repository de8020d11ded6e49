"""Plain JAX as ONNX nodes: sums, shapes, pools, products with constant matrices.

Operations that only move values, and maxima, stay among the codes of a quantized
tensor, because they commute with rounding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from common.errors import UserError
from common.onnx.reshape import reshaped
from common.onnx.sizes import (
    DependsOnSizeError,
    Differing,
    Side,
    Varying,
    difference,
    product,
)
from common.onnx.values import NCHW, Summed, Tensor
from common.onnx.walk import Given, Step
from common.onnx.writer import Writer

# A layer that waits for what follows it is known to its writer only.
Value = Any

_ELEMENTWISE = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
}

_NOT_OF_REPEATED = frozenset(
    {
        *("concatenate", "conv_general_dilated", "dot_general", "pad", "reduce_max"),
        *("reduce_sum", "reduce_window_max", "reduce_window_sum", "slice", "split"),
        "transpose",
    }
)


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
    check_constants(writer, step)
    return PLAIN[step.kind](writer, step)


def check_constants(writer: Writer, step: Step) -> None:
    """Refuses an operation on a constant that is repeated for each image.

    The graph holds it once, which only elementwise operations can take.

    Raises:
      UserError: the operation takes such a constant, and is another one.
    """
    if step.kind in _NOT_OF_REPEATED and any(
        isinstance(given, int) and isinstance(writer.value(given), np.ndarray)
        for given in step.inputs
    ):
        raise refusal(step, "it takes a constant that is repeated for each image")


def refusal(step: Step, reason: str) -> UserError:
    """Returns the error that names an operation and the reason."""
    return UserError(
        f"the operation {step.kind!r} to the shape {step.shape} between layers cannot "
        f"be exported: {reason}"
    )


def _same(writer: Writer, step: Step) -> Value:
    return writer.value(step.inputs[0])


def _converted(writer: Writer, step: Step) -> Value:
    if step.params["new_dtype"] != np.float32:
        raise refusal(step, f"it makes {step.params['new_dtype']} of float32")
    return _same(writer, step)


def _elementwise(writer: Writer, step: Step) -> Tensor | Value:
    if step.kind == "div" and _is_mean(writer, *step.inputs):
        return writer.reduced(writer.value(step.inputs[0]), "ReduceMean")
    return elementwise(writer, step, _ELEMENTWISE[step.kind])


def _is_mean(writer: Writer, first: Given, second: Given) -> bool:
    """Returns whether a sum is divided by the number of its values."""
    if not isinstance(first, int) or isinstance(second, int):
        return False
    total = writer.value(first)
    if not isinstance(total, Summed):
        return False
    count = total.count
    if isinstance(second, Differing) and isinstance(count, Varying):
        return all(map(_all_are, second.arrays, count))
    return isinstance(second, np.ndarray) and _all_are(second, count)


def _all_are(values: np.ndarray, number: Side) -> bool:
    return not isinstance(number, Varying) and bool(np.all(values == number))


def elementwise(writer: Writer, step: Step, kind: str) -> Tensor:
    """Returns an operation between the elements of its inputs, by ONNX's name."""
    given = [
        value if isinstance(value, np.ndarray) else writer.floats(number, step)
        for value, number in ((writer.value(n), n) for n in step.inputs)
    ]
    # That of an operand which is not repeated: repeated ones are small.
    orders = [value.order for value in given if isinstance(value, Tensor)]
    whole = [
        value.order
        for value in given
        if isinstance(value, Tensor) and value.shape == step.shape
    ]
    order = (whole + orders + [tuple(range(len(step.shape)))])[0]
    names = [_operand(writer, value, order) for value in given]
    return Tensor(writer.graph.node(kind, names, step.kind), order, step.shape)


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
        raise refusal(step, "it adds images of a batch")
    return Summed(x, axes, product([x.shape[axis] for axis in axes]), step.shape)


def _greatest(writer: Writer, step: Step) -> Tensor:
    x = writer.tensor(step.inputs[0], step)
    axes = tuple(step.params["axes"])
    if 0 in axes:
        raise refusal(step, "it compares images of a batch")
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
        # Sides that follow the images' size are of constants that are repeated.
        shape = _whole(step.shape, "a constant has the images' shape")
        if math.prod(shape) != value.size:
            raise refusal(step, "it takes a constant that is repeated for each image")
        return value.reshape(shape)
    if isinstance(value, Summed) and step.shape == _with_axes(value):
        return value._replace(shape=step.shape, keeps_axes=True)
    return _with_shape(writer, step, step.shape)


def _with_shape(writer: Writer, step: Step, shape: tuple[Side, ...]) -> Tensor:
    found = reshaped(writer, writer.tensor(step.inputs[0], step), shape)
    if found is None:
        raise refusal(step, "it mixes images of a batch")
    return found


def _whole(numbers: Sequence[Side], problem: str) -> tuple[int, ...]:
    """Returns numbers that must be the same for images of every size."""
    whole = tuple(number for number in numbers if not isinstance(number, Varying))
    if len(whole) < len(numbers):
        raise DependsOnSizeError(problem)
    return whole


def _with_axes(value: Summed) -> tuple[Side, ...]:
    """Returns the shape of a sum with sides of 1 where it was summed."""
    shape = value.x.shape
    return tuple(1 if i in value.axes else side for i, side in enumerate(shape))


def _broadcast(writer: Writer, step: Step) -> Value:
    value = writer.value(step.inputs[0])
    spread: list[Side] = [1] * len(step.shape)
    kept = step.params["broadcast_dimensions"]
    for axis, side in zip(kept, value.shape, strict=True):
        spread[axis] = side
    if isinstance(value, np.ndarray):
        # Sides of 1 suffice: what takes it broadcasts it.
        return value.reshape(_whole(spread, "a constant has the images' shape"))
    if tuple(spread) == step.shape:
        return _reshape(writer, step)
    if spread[0] != step.shape[0]:
        raise refusal(step, "it repeats images of a batch")
    x = _with_shape(writer, step, tuple(spread))
    sides = [1 if a == b else b for a, b in zip(spread, step.shape, strict=True)]
    shape = writer.vector([sides[axis] for axis in x.order], "shape")
    name = writer.graph.node("Expand", [x.name, shape], f"{x.name}/repeated")
    return x._replace(name=name, shape=step.shape)


def _concatenate(writer: Writer, step: Step) -> Tensor:
    filled = [n for n in step.inputs if not (isinstance(n, np.ndarray) and not n.size)]
    if len(filled) == 1:
        return writer.tensor(filled[0], step)
    tensors = [writer.tensor(number, step) for number in filled]
    if len({tensor.codes for tensor in tensors}) > 1:
        tensors = [writer.floats(number, step) for number in filled]
    first = tensors[0]
    axis = step.params["dimension"]
    if axis == 0:
        raise refusal(step, "it joins images of a batch")
    names = [writer.ordered(tensor, first.order).name for tensor in tensors]
    name = writer.graph.node("Concat", names, "concatenated", axis=first.place(axis))
    return first._replace(name=name, shape=step.shape)


def _slice(writer: Writer, step: Step) -> Tensor:
    x = writer.tensor(step.inputs[0], step)
    starts, ends = step.params["start_indices"], step.params["limit_indices"]
    strides = step.params["strides"] or (1,) * len(x.shape)
    return sliced(writer, step, x, starts, ends, strides)


def sliced(
    writer: Writer,
    step: Step,
    x: Tensor,
    starts: Sequence[Side],
    ends: Sequence[Side],
    strides: Sequence[int],
) -> Tensor:
    """Returns a part of a tensor, by the network's axes."""
    cut = [
        (start, _end(end, side), x.place(axis), stride)
        for axis, (start, end, stride, side) in enumerate(
            zip(starts, ends, strides, x.shape, strict=True)
        )
        if (start, end, stride) != (0, side, 1)
    ]
    if not cut:
        return x
    if any(place == x.place(0) for _, _, place, _ in cut):
        raise refusal(step, "it takes some images of a batch")
    inputs = [
        writer.vector(numbers, name)
        for name, numbers in zip(
            ("starts", "ends", "axes", "steps"), zip(*cut, strict=True), strict=True
        )
    ]
    name = writer.graph.node("Slice", [x.name, *inputs], f"{x.name}/sliced")
    return x._replace(name=name, shape=step.shape)


def _end(end: Side, side: Side) -> Side:
    """Returns where a slice ends; counted from the end if that is a constant."""
    if isinstance(end, Varying):
        behind = difference(end, side)
        if not isinstance(behind, Varying):
            return behind or np.iinfo(np.int64).max
    return end


def _pad(writer: Writer, step: Step) -> Tensor:
    filling = writer.value(step.inputs[1])
    config = step.params["padding_config"]
    if not isinstance(filling, np.ndarray) or any(
        _least(low) < 0 or _least(high) < 0 or inside for low, high, inside in config
    ):
        raise refusal(step, "it cuts, spreads, or pads with values that are computed")
    x = writer.tensor(step.inputs[0], step)
    if x.codes is not None and filling == 0:
        value = np.uint8(x.codes.zero_point)
    else:
        x, value = writer.floats(step.inputs[0], step), np.float32(filling)
    if not any(low or high for low, high, _ in config):
        return x
    inputs = [
        writer.vector(
            [config[axis][end] for end in (0, 1) for axis in x.order], "pads"
        ),
        writer.graph.constant(value, "padding"),
    ]
    name = writer.graph.node("Pad", [x.name, *inputs], f"{x.name}/padded")
    return x._replace(name=name, shape=step.shape)


def _least(number: Side) -> int:
    return min(number) if isinstance(number, Varying) else number


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
        raise refusal(step, "it is no pool over height and width")
    sizes = (*window, *strides, *(side for ends in padding for side in ends))
    _whole(sizes, "a pool has the images' size")
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
        raise refusal(step, "it is no product with a constant matrix")
    if any(batched) or left[0] == 0:
        raise refusal(step, "it mixes images of a batch")
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

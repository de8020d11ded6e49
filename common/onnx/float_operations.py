"""JAX of float networks as ONNX nodes: convolutions, functions, products of tensors.

They come in addition to `common.onnx.plain`. Convolutions are those of
`jax.lax.conv_general_dilated`, whose kernel must be constant.
"""

import string
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from common.errors import UserError
from common.onnx.plain import PLAIN, check_constants, elementwise, refusal, sliced
from common.onnx.sizes import DependsOnSizeError, Varying
from common.onnx.values import Tensor
from common.onnx.walk import Step
from common.onnx.writer import Writer

_UNARY = {
    "abs": "Abs",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "neg": "Neg",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_COMPARISONS = {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}

_FLOAT32 = 1  # ONNX's number of the type


def add_float(writer: Writer, step: Step) -> object:
    """Returns the result of an operation.

    Raises:
      UserError: the operation cannot be exported; the message lists those that can.
    """
    if step.kind not in FLOAT:
        raise UserError(
            f"the operation {step.kind!r} cannot be exported; accepted: "
            f"{', '.join(sorted(FLOAT))}. Rewrite that part of the network."
        )
    check_constants(writer, step)
    return FLOAT[step.kind](writer, step)


def _unary(writer: Writer, step: Step) -> Tensor:
    return _applied(writer, step, _UNARY[step.kind])


def _applied(writer: Writer, step: Step, *kinds: str) -> Tensor:
    """Returns functions of each element, one after the other."""
    x = writer.floats(step.inputs[0], step)
    name = x.name
    for kind in kinds:
        name = writer.graph.node(kind, [name], step.kind)
    return x._replace(name=name)


def _inverse_root(writer: Writer, step: Step) -> Tensor:
    return _applied(writer, step, "Sqrt", "Reciprocal")


def _square(writer: Writer, step: Step) -> Tensor:
    x = writer.floats(step.inputs[0], step)
    return x._replace(name=writer.graph.node("Mul", [x.name, x.name], step.kind))


def _power(writer: Writer, step: Step) -> Tensor:
    x = writer.floats(step.inputs[0], step)
    exponent = writer.graph.constant(np.float32(step.params["y"]), "constant")
    return x._replace(name=writer.graph.node("Pow", [x.name, exponent], step.kind))


def _erf_complement(writer: Writer, step: Step) -> Tensor:
    x, one = _applied(writer, step, "Erf"), _one(writer)
    return x._replace(name=writer.graph.node("Sub", [one, x.name], step.kind))


def _exp_without_one(writer: Writer, step: Step) -> Tensor:
    x, one = _applied(writer, step, "Exp"), _one(writer)
    return x._replace(name=writer.graph.node("Sub", [x.name, one], step.kind))


def _log_with_one(writer: Writer, step: Step) -> Tensor:
    x, one = writer.floats(step.inputs[0], step), _one(writer)
    added = writer.graph.node("Add", [x.name, one], step.kind)
    return x._replace(name=writer.graph.node("Log", [added], step.kind))


def _one(writer: Writer) -> str:
    return writer.graph.constant(np.float32(1), "constant")


def _difference(writer: Writer, step: Step) -> object:
    """Returns a difference; a sum if a constant is subtracted.

    Runtimes join a convolution with the sum and product that batch normalisation makes
    of it, and not with a difference. Both are the same float32.
    """
    subtracted = step.inputs[1]
    if not isinstance(subtracted, np.ndarray):
        return PLAIN["sub"](writer, step)
    added = (step.inputs[0], -subtracted)
    return PLAIN["add"](writer, step._replace(kind="add", inputs=added))


def _maximum(writer: Writer, step: Step) -> object:
    """Returns a maximum; a rectifier, which runtimes join with a convolution, of 0."""
    first, second = step.inputs
    if isinstance(first, np.ndarray):
        first, second = second, first
    if isinstance(second, np.ndarray) and not second.any() and second.size == 1:
        return _applied(writer, step._replace(inputs=(first,)), "Relu")
    return PLAIN["max"](writer, step)


def _comparison(writer: Writer, step: Step) -> Tensor:
    return elementwise(writer, step, _COMPARISONS[step.kind])


def _converted(writer: Writer, step: Step) -> object:
    """Returns floats, also of the result of a comparison."""
    value = PLAIN["convert_element_type"](writer, step)
    if not isinstance(value, Tensor):
        return value
    cast = writer.graph.node("Cast", [value.name], step.kind, to=_FLOAT32)
    return value._replace(name=cast)


def _selected(writer: Writer, step: Step) -> Tensor:
    if len(step.inputs) != 3 or isinstance(step.inputs[0], np.ndarray):
        raise refusal(step, "accepted: a choice of two by a comparison of tensors")
    condition, no, yes = step.inputs
    return elementwise(writer, step._replace(inputs=(condition, yes, no)), "Where")


def _split(writer: Writer, step: Step) -> Tensor:
    x = writer.tensor(step.inputs[0], step)
    sizes, axis = step.params["sizes"], step.params["axis"]
    result = step.params.get("result", 0)
    starts, ends = [0] * len(x.shape), list(x.shape)
    if any(isinstance(size, Varying) for size in sizes):
        raise DependsOnSizeError("an image is cut into parts of its size")
    starts[axis] = sum(sizes[:result])
    ends[axis] = starts[axis] + sizes[result]
    return sliced(writer, step, x, starts, ends, (1,) * len(x.shape))


def _convolution(writer: Writer, step: Step) -> Tensor:
    params, (image, given) = step.params, step.inputs
    kernel = None if isinstance(image, np.ndarray) else given
    if not isinstance(kernel, np.ndarray) or params["batch_group_count"] != 1:
        raise refusal(step, "its kernel is not constant")
    spec = params["dimension_numbers"]
    x = writer.ordered(writer.floats(image, step), tuple(spec.lhs_spec))
    kernel = kernel.transpose(spec.rhs_spec).astype(np.float32)
    if any(isinstance(side, Varying) for ends in params["padding"] for side in ends):
        raise DependsOnSizeError("a padding depends on the size of the images")
    padding = np.array(params["padding"])
    attributes = {"dilations": list(params["rhs_dilation"])}
    if set(params["lhs_dilation"]) == {1}:
        kind, attributes["strides"] = "Conv", list(params["window_strides"])
    else:
        kind, attributes["strides"] = "ConvTranspose", list(params["lhs_dilation"])
        kernel, padding = _transposed(step, kernel, padding)
        # A runtime cuts the result's edges by the padding, or adds to its ends.
        attributes["output_padding"] = np.maximum(-padding[:, 1], 0).tolist()
        padding[:, 1] = np.maximum(padding[:, 1], 0)
    if padding.min() < 0:
        raise refusal(step, "it has a negative padding")
    name = writer.graph.node(
        kind,
        [x.name, writer.graph.constant(kernel, "kernel")],
        "convolution",
        pads=padding.T.ravel().tolist(),
        group=params["feature_group_count"],
        **attributes,
    )
    return Tensor(name, tuple(spec.out_spec), step.shape)


def _transposed(
    step: Step, kernel: np.ndarray, padding: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and padding of a convolution with gaps as ConvTranspose has them.

    Args:
      step: the convolution.
      kernel: OIHW.
      padding: (axes, 2).
    """
    params = step.params
    if params["feature_group_count"] != 1 or set(params["window_strides"]) != {1}:
        raise refusal(step, "a transposed convolution has groups or strides")
    reach = np.array(params["rhs_dilation"]) * (np.array(kernel.shape[2:]) - 1)
    return kernel.swapaxes(0, 1)[:, :, ::-1, ::-1], reach[:, None] - padding


def _product(writer: Writer, step: Step) -> object:
    """Returns a product with a constant matrix, or of two tensors (Einsum)."""
    second = step.inputs[1]
    if isinstance(second, np.ndarray) and second.ndim == 2:
        return PLAIN["dot_general"](writer, step)
    contracted, batched = step.params["dimension_numbers"]
    if [axes[:1] for axes in map(tuple, batched)] != [(0,), (0,)]:
        raise refusal(step, "it mixes images of a batch")
    left, right = (writer.floats(given, step) for given in step.inputs)
    letters = iter(string.ascii_lowercase)
    first = [next(letters) for _ in left.shape]
    other = [next(letters) for _ in right.shape]
    for ours, theirs in (contracted, batched):
        for axis, same in zip(ours, theirs, strict=True):
            other[same] = first[axis]
    shared = [first[axis] for axis in batched[0]]
    gone = {first[axis] for axis in contracted[0]}
    rest = [a for a in first + other if a not in gone and a not in shared]
    terms = [
        "".join(names[axis] for axis in x.order)
        for names, x in ((first, left), (other, right))
    ]
    name = writer.graph.node(
        "Einsum",
        [left.name, right.name],
        "product",
        equation=f"{','.join(terms)}->{''.join(shared + rest)}",
    )
    return Tensor(name, tuple(range(len(step.shape))), step.shape)


FLOAT: Mapping[str, Callable[[Writer, Step], object]] = MappingProxyType(
    {
        **PLAIN,
        **dict.fromkeys(_UNARY, _unary),
        **dict.fromkeys(_COMPARISONS, _comparison),
        "convert_element_type": _converted,
        "conv_general_dilated": _convolution,
        "dot_general": _product,
        "erfc": _erf_complement,
        "expm1": _exp_without_one,
        "integer_pow": _power,
        "log1p": _log_with_one,
        "max": _maximum,
        "rsqrt": _inverse_root,
        "select_n": _selected,
        "split": _split,
        "square": _square,
        "sub": _difference,
    }
)
"""Operations of JAX by the names of their primitives."""

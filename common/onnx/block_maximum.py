"""Maxima of blocks of pixels, as one step in place of many.

A network may halve images by the maximum of slices: it splits height and width into
blocks, (n, h/s, s, w/s, s, c), takes the s x s slices at each place of a block, and
their maxima two by two. Runtimes have one fast operation for that. It is the step
`reduce_window_max` here.
"""

import itertools
from collections.abc import Mapping, Sequence

from common.onnx.sizes import product
from common.onnx.walk import Step, needed

# Axes of blocks (n, h/s, s, w/s, s, c) that are inside a block.
_INSIDE = (2, 4)


def with_pools(steps: Sequence[Step], result: int) -> tuple[Step, ...]:
    """Returns the steps that a result needs, with maxima of blocks as pools."""
    by_output = {step.output: step for step in steps}
    return needed([_pool(step, by_output) or step for step in steps], result)


def _pool(step: Step, by_output: Mapping[int, Step]) -> Step | None:
    """Returns the pool that a maximum ends; None if it ends none."""
    parts = _parts(step, by_output)
    slices = [_slice_of(part, by_output) for part in parts]
    found = [part for part in slices if part is not None]
    if len(parts) < 2 or len(found) < len(parts):
        return None
    places, sources = zip(*found, strict=True)
    if len(set(sources)) > 1:
        return None
    blocks = by_output.get(sources[0])
    if blocks is None or blocks.kind != "reshape" or len(blocks.shape) != 6:
        return None
    image, (n, h, rows, w, columns, c) = blocks.inputs[0], blocks.shape
    if not isinstance(image, int) or image not in by_output:
        return None
    if not isinstance(rows, int) or rows != columns or step.shape != (n, h, w, c):
        return None
    whole = (n, product((h, rows)), product((w, rows)), c)
    each = sorted(itertools.product(range(rows), repeat=2))
    if by_output[image].shape != whole or sorted(places) != each:
        return None
    window = (1, rows, rows, 1)
    params = {
        "window_dimensions": window,
        "window_strides": window,
        "padding": ((0, 0),) * 4,
        "base_dilation": (1,) * 4,
        "window_dilation": (1,) * 4,
    }
    return step._replace(kind="reduce_window_max", inputs=(image,), params=params)


def _parts(step: Step, by_output: Mapping[int, Step]) -> list[Step]:
    """Returns the steps whose results maxima of two join; none if one is a constant."""
    if step.kind != "max":
        return []
    parts = []
    for value in step.inputs:
        part = by_output.get(value) if isinstance(value, int) else None
        if part is None:
            return []
        parts += _parts(part, by_output) if part.kind == "max" else [part]
    return parts


def _slice_of(
    step: Step, by_output: Mapping[int, Step]
) -> tuple[tuple[int, int], int] | None:
    """Returns the place in a block that a slice takes, and the number of the blocks."""
    cut = by_output.get(step.inputs[0]) if isinstance(step.inputs[0], int) else None
    if step.kind not in ("squeeze", "reshape") or cut is None or cut.kind != "slice":
        return None
    source = cut.inputs[0]
    starts, ends = cut.params["start_indices"], cut.params["limit_indices"]
    if len(starts) != 6 or not isinstance(source, int):
        return None
    blocks = by_output.get(source)
    strides = cut.params["strides"] or (1,) * 6
    if blocks is None or set(strides) != {1}:
        return None
    for axis, (start, end, side) in enumerate(
        zip(starts, ends, blocks.shape, strict=True)
    ):
        one = isinstance(start, int) and end == start + 1
        if not (one if axis in _INSIDE else (start, end) == (0, side)):
            return None
    return (starts[2], starts[4]), source

"""A denoiser as a graph of floats.

The input `hu` is float32 (batch, slices, height, width) in HU, the output `denoised`
float32 (batch, 1, height, width) in HU: the denoised middle slice. The conversion to
the network's unit and back is part of the graph. Layers compute in float32, also those
of a network that was trained in bfloat16.

A graph takes images of any height and width that are multiples of the network's stride,
from a smallest one on, if the network's operations are the same for all of them. The
graph of another network takes one size.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.ad_checkpoint import checkpoint_name

from common.errors import UserError
from common.image_network import Quantized
from common.intercepted import intercepted, name_of
from common.onnx.block_maximum import with_pools
from common.onnx.float_operations import add_float
from common.onnx.graph import Graph
from common.onnx.integers import add_mark, mark_of, with_integers
from common.onnx.sizes import DependsOnSizeError, Sizes, merged
from common.onnx.values import NCHW, Tensor
from common.onnx.walk import BATCH, Step, Walk, joined, needed
from common.onnx.writer import Writer
from ipv2.inference.tiling import DEFAULT_TILE
from ipv2.inference.trained import Trained
from ipv2.training.denoiser import Flow, make_denoise

INPUT, OUTPUT = "hu", "denoised"

# Where padding to the smallest size that a network can take may no longer occur. The
# last ones are for networks of many scales.
_LEAST_SIDES = (32, 64, 128, 256)

_FLOW_REASONS = {
    "fm": "it is a flow: it applies its network once for each step of a sampler",
    "ffm": (
        "it is a flow, which applies its network once for each step of a sampler, and "
        "its layers have Fourier transforms, which ONNX runtimes lack for images"
    ),
}


class DenoiserGraph(NamedTuple):
    """A graph with the sizes of images that it takes.

    Attributes:
      graph: from `hu` to `denoised`.
      least: smallest height and width, a multiple of the network's stride.
      fixed: whether it takes only this one.
    """

    graph: Graph
    least: int
    fixed: bool


def denoiser_graph(
    trained: Trained, quantized: Quantized | None = None
) -> DenoiserGraph:
    """Returns a denoiser as a graph.

    Args:
      trained: the network.
      quantized: the same network with integers in its convolutions; None for floats.

    Raises:
      UserError: the network is a flow, or has an operation that cannot be exported.
    """
    if quantized is not None:
        rounded = dataclasses.replace(trained, variables=quantized.variables)
        found = _float_graph(rounded, marked=True)
        return found._replace(graph=with_integers(found.graph, quantized.roundings))
    return _float_graph(trained, marked=False)


def _float_graph(trained: Trained, *, marked: bool) -> DenoiserGraph:
    """Returns a graph of floats; `marked`: with marks before its convolutions."""
    if isinstance(trained.denoiser, Flow):
        accepted = (
            "cnn10, dncnn, nafnet, redcnn, restormer, unet, and networks of yours"
        )
        raise UserError(
            f"{trained.name} cannot be exported as ONNX: {_FLOW_REASONS[trained.name]}."
            f" Accepted: {accepted}"
        )
    stride, reason = trained.stride, ""
    for side in _LEAST_SIDES:
        sizes = Sizes(unit=stride, least=-(-side // stride))
        try:
            graph = _graph(trained, sizes, marked)
        except DependsOnSizeError as error:
            reason = str(error)
        else:
            return DenoiserGraph(graph, sizes.least * stride, fixed=False)
    radius = trained.radius or 0
    side = -(-max(DEFAULT_TILE, 4 * radius) // stride) * stride
    logging.info(
        "%s: the ONNX file takes images of %d x %d pixels only: %s",
        *(trained.name, side, side, reason),
    )
    return DenoiserGraph(_graph(trained, side, marked), side, fixed=True)


def _graph(trained: Trained, sizes: Sizes | int, marked: bool) -> Graph:
    """Returns the graph for images of several sizes, or of one side."""
    pixels = sizes.pixels if isinstance(sizes, Sizes) else ((sizes, sizes),)
    with intercepted(_mark if marked else None):
        walks = [_steps(trained, size) for size in pixels]
    _, image, result = walks[0]
    steps = with_pools(joined([found for found, _, _ in walks]), result)
    writer = Writer(Graph(INPUT, OUTPUT), sizes if isinstance(sizes, Sizes) else None)
    shapes = [(BATCH, *size, trained.denoiser.slices) for size in pixels]
    writer.values[image] = Tensor(INPUT, NCHW, merged(shapes))
    for step in steps:
        mark = add_mark(writer, step)
        writer.values[step.output] = mark or add_float(writer, step)
    end = Step("the result", (result,), -1, (), {})
    writer.graph.finish(writer.ordered(writer.floats(result, end), NCHW).name)
    return writer.graph


def _mark(module: nn.Module, x: jax.Array) -> jax.Array:
    return checkpoint_name(x, mark_of(name_of(module)))


def _steps(
    trained: Trained, size: tuple[int, int]
) -> tuple[tuple[Step, ...], int, int]:
    """Returns the steps for images of a size, and the numbers of input and result."""
    spec = dataclasses.replace(trained.spec, dtype="float32")
    denoise = make_denoise(spec.create())

    def image(variables: object, hu: jax.Array) -> jax.Array:
        return denoise(variables, hu)[..., None]

    stack = jax.ShapeDtypeStruct((BATCH, *size, trained.denoiser.slices), jnp.float32)
    closed = jax.make_jaxpr(image)(trained.variables, stack)
    walk = Walk()
    number = walk.number()
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trained.variables)]
    (result,) = walk.through(closed, [*leaves, number])
    assert isinstance(result, int), "the result does not depend on the image"
    return needed(walk.steps, result), number, result

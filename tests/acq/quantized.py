"""Small quantized networks for several test files."""

import jax
import jax.numpy as jnp

from acq.kernels.grid import Grid
from acq.layers.float import FloatLayers
from acq.layers.quantized import Quantizer, QuantLayers
from tests.acq.models.small import create_small, random_images, random_variables
from tests.acq.own_network import PlainNet

CLASSES = 5


def quant_layers(bits, *, symmetric=False, gradient="identity", others=None):
    """Returns layers with one grid for kernels and activations."""
    grid = Grid(bits, symmetric)
    return QuantLayers(
        Quantizer(grid),
        Quantizer(grid, gradient),
        None if others is None else Quantizer(Grid(others), gradient),
    )


def create(name, layers):
    """Returns the small network `name`, or 'own'."""
    if name == "own":
        return PlainNet(layers, CLASSES, width=4)
    return create_small(name, layers, CLASSES)


def float_variables(name):
    """Returns (variables, images) of the float network."""
    x = random_images("cifar" if name == "own" else name, count=2)
    return random_variables(create(name, FloatLayers()), x), x


def quantized(name, layers):
    """Returns (network, variables with ranges that clip a little, images)."""
    network = create(name, layers)
    variables, x = float_variables(name)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    ends, tree = jax.tree_util.tree_flatten_with_path(shapes["ranges"])
    ranges = [
        jnp.float32((1.5 if path[-1].key == "high" else -0.4) * (1 + 0.01 * i))
        for i, (path, _) in enumerate(ends)
    ]
    return network, {**variables, "ranges": jax.tree.unflatten(tree, ranges)}, x

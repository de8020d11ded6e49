"""Networks of each family that compile in about a second, and variables for them."""

import jax
import jax.numpy as jnp
import numpy as np

from acq.layers.float import FloatLayers
from acq.models import VGG, CifarResNet, EfficientNetLite, MobileNetV2, ResNet

# Family, its attributes, and the size of images that leave the last stage 2x2 or more.
SMALL = {
    "cifar": (CifarResNet, {"depth": 8, "width": 4}, 12),
    "cifar_projection": (
        CifarResNet,
        {"depth": 8, "width": 4, "shortcut": "projection"},
        12,
    ),
    "basic": (ResNet, {"stage_sizes": (1, 1), "width": 4}, 20),
    "bottleneck": (
        ResNet,
        {"stage_sizes": (1, 2), "width": 2, "bottleneck": True},
        20,
    ),
    "bottleneck_stride_in_first": (
        ResNet,
        {
            "stage_sizes": (1, 1),
            "width": 2,
            "bottleneck": True,
            "stride_in_first": True,
        },
        20,
    ),
    "mobilenet": (
        MobileNetV2,
        {"stages": ((1, 8, 1, 1), (2, 8, 1, 2)), "width_multiplier": 0.25},
        12,
    ),
    # Both kernel sizes, strides with even and odd sides, a shortcut.
    "efficientnet_lite": (
        EfficientNetLite,
        {
            "stages": ((3, 1, 4, 1, 1), (5, 2, 6, 2, 2), (3, 2, 8, 1, 2)),
            "stem": 4,
            "head": 16,
        },
        12,
    ),
    "vgg": (VGG, {"stages": ((4,), (4, 6)), "hidden": 8}, 10),
}


def create_small(name, layers=None, classes=5, **attributes):
    family, small, _ = SMALL[name]
    layers = FloatLayers() if layers is None else layers
    return family(layers=layers, classes=classes, **{**small, **attributes})


def random_images(name, count=3, seed=0):
    """Returns images of a size for the network; sides differ."""
    size = SMALL[name][2]
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(count, size + 2, size, 3)), jnp.float32)


def random_variables(network, x, seed=0):
    """Returns random variables, all different from initial values."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, values = path[-1].key, rng.normal(size=leaf.shape)
        match name:
            case "kernel":
                values *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
            case "scale":
                values = 1 + 0.2 * values
            case "var":
                values = 0.5 + np.abs(values)
            case _:
                values *= 0.2
        return jnp.asarray(values, leaf.dtype)

    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(draw, shapes)

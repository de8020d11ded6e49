"""Networks that compile in seconds, and variables that need no compilation."""

import jax
import jax.numpy as jnp
import numpy as np

from ipv2.models import create_model

ATTRIBUTES = {
    "cnn10": {},
    "dncnn": {"width": 8, "depth": 4},
    "nafnet": {
        "width": 4,
        "encoder_blocks": (1,),
        "middle_blocks": 1,
        "decoder_blocks": (1,),
    },
    "redcnn": {"width": 4},
    "restormer": {
        "width": 4,
        "blocks": (1, 1),
        "heads": (1, 2),
        "refinement_blocks": 0,
    },
    "unet": {"width": 4, "levels": 2},
}


def create_small(name, **attributes):
    return create_model(name, **{**ATTRIBUTES[name], **attributes})


def random_image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_variables(model, x, seed=0):
    """Every leaf off its initial value: kernels of LeCun's scale, others by 0.3."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        values = rng.normal(size=leaf.shape)
        if name == "kernel":
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif name in ("scale", "temperature"):
            values = 1 + 0.3 * values
        elif name == "var":
            values = 1 + 0.3 * np.abs(values)
        else:
            values *= 0.3
        return jnp.asarray(values, leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(draw, shapes)

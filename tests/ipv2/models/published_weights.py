"""Weights of published FFMs, small ones and their names in full size."""

import functools
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from ipv2.models import FFM
from ipv2.models.published_ffm import published_name, published_shape

TABLE = Path(__file__).parents[2] / "data/ffm_state_dict.tsv"
"""Names and shapes of the tensors of the published network, 39,512,099 numbers."""

SMALL = {"width": 16, "multipliers": (1,)}


def table():
    """Name and shape of every tensor of the published network."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()[1:]
    pairs = (line.split("\t") for line in lines)
    return {name: tuple(map(int, shape.split("x"))) for name, shape in pairs}


@functools.cache
def shapes_of(**attributes):
    """The variables of our FFM with three channels, as shapes."""
    model = FFM(channels=3, time_scale=1.0, **attributes)
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    time = jax.ShapeDtypeStruct((1,), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), x, time)


def small_tensors(seed=0):
    """Random weights of a small published FFM by name."""
    rng = np.random.default_rng(seed)
    found = {}
    for path, leaf in flatten_dict(shapes_of(**SMALL)["params"]).items():
        name = published_name(path)
        shape = published_shape(name, leaf.shape)
        spread = 0.5 * max(1, np.prod(shape[1:])) ** -0.5
        found[name] = rng.normal(path[-1] == "scale", spread, shape).astype(np.float32)
    return found

"""A small network from images to images, of plain flax layers."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from acq.denoisers.bits import NetworkBits, convolutions_of
from common.image_network import ImageNetwork
from common.report.parts import ViewedSlice, to_stored_hu


class Residual(nn.Module):
    """Three convolutions with a normalisation, added to the input.

    Attributes:
      norm: whether the middle convolution has one.
      axis_name: of its devices.
    """

    norm: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train=False):
        y = nn.relu(nn.Conv(4, (3, 3), name="first")(x))
        y = nn.Conv(4, (3, 3), use_bias=False, name="middle")(y)
        if self.norm:
            y = nn.BatchNorm(not train, axis_name=self.axis_name, name="norm")(y)
        return x + nn.Conv(1, (1, 1), name="last")(nn.relu(y))


def random_variables(module, seed=0):
    """Returns variables off their first values."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif path[-1].key in ("var", "scale"):
            values = 0.5 + np.abs(values)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def small_network(**attributes):
    """Returns a network, with images of noise for every kind."""
    module = Residual(**attributes)
    return ImageNetwork(
        name="residual",
        module=module,
        variables=random_variables(module),
        channels=1,
        low=-1.0,
        high=2.0,
        stored=(-2.0, 2.0),
        multiple=4,
        identity={"sha256": "0"},
        images=lambda kind, count, side, seed: images(count, side, seed),
        kinds={"phantom": "noise, for tests"},
        judge=lambda functions: {},
        warnings=(),
        views=lambda functions: [],
        to_hu=lambda unit: 1000 * unit,
        write=lambda quantized, path: None,
    )


def images(count, side=8, seed=0):
    """Returns images like those of a chest, in range and spread."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(-0.2, 0.5, (count, side, side, 1)), jnp.float32)


def bits_of(network, weight_bits=8, activation_bits=8, first_last_bits=8):
    """Returns bits of a network's convolutions."""
    return NetworkBits(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        first_last_bits=first_last_bits,
        names=tuple(found.name for found in convolutions_of(network, 8)),
    )


def opened(export, **options):
    """Opens the small network, as a config names it; it judges on noise."""
    x = images(2, seed=9)

    def judge(functions):
        outputs = {name: np.asarray(apply(x)) for name, apply in functions.items()}
        return {
            "noise": {
                name: {"rms": float(np.sqrt(np.mean((y - outputs["float"]) ** 2)))}
                for name, y in outputs.items()
            }
        }

    def views(functions):
        made = {name: apply(x[:1])[0, ..., 0] for name, apply in functions.items()}
        hu = {"input": x[0, ..., 0], **made}
        stored = {name: to_stored_hu(1000 * np.asarray(y)) for name, y in hu.items()}
        return [ViewedSlice("noise", "", stored, "float")]

    def write(quantized, path):
        path.write_text(" ".join(quantized.roundings) if quantized else "float")

    del options
    return dataclasses.replace(
        small_network(norm=export != "plain"),
        identity={"sha256": export},
        judge=judge,
        views=views,
        write=write,
    )

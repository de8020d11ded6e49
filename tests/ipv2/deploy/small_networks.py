"""Small trained denoisers, and their ONNX models run."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from common.onnx.package import onnx_model
from ipv2.deploy.network_graph import denoiser_graph
from ipv2.inference.trained import Trained
from ipv2.training.denoiser import make_denoise
from ipv2.training.denoiser_spec import DenoiserSpec, Sampling
from tests.ipv2.models.small import ATTRIBUTES, random_variables


def trained(name, *, seed=0, **given):
    """Returns a network with random variables, and a manifest as exports have it."""
    flow = {"sampling": Sampling()} if name in ("fm", "ffm") else {}
    channels = given.pop("channels", 1)
    attributes = given or ATTRIBUTES.get(name, {})
    spec = DenoiserSpec(name=name, channels=channels, attributes=attributes, **flow)
    denoiser = spec.create()
    like = jax.eval_shape(lambda: denoiser.init(jax.random.key(0)))
    if flow:
        variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    else:
        x = jnp.zeros((1, 32, 32, channels))
        variables = random_variables(denoiser.model, x, seed)
    manifest = {
        **spec.to_json(),
        "sha256": "5" * 64,
        "software_version": "0.1.0",
        "step": 7,
    }
    return Trained(spec=spec, denoiser=denoiser, variables=variables, manifest=manifest)


def content_of(network):
    """Returns the ONNX model of a network, and its graph with the sizes it takes."""
    found = denoiser_graph(network)
    sides = (found.least,) * 2 if found.fixed else ("h", "w")
    model = onnx_model(
        found.graph,
        ("n", network.slices, *sides),
        ("n", 1, *sides),
        name="denoiser",
        producer="ipv2",
        description="",
    )
    return model.SerializeToString(), found


def run(content, hu):
    """Returns what onnxruntime makes of (n, h, w, c) HU, (n, h, w)."""
    session = onnxruntime.InferenceSession(content)
    (result,) = session.run(None, {"hu": np.float32(hu.transpose(0, 3, 1, 2))})
    assert result.shape[1] == 1
    return result[:, 0]


def expected(network, hu):
    """Returns what the network makes of (n, h, w, c) HU in JAX, (n, h, w)."""
    apply = jax.jit(make_denoise(network.denoiser))
    return np.asarray(apply(network.variables, jnp.asarray(hu)))


def noisy(*shape, seed=0):
    """Returns HU like those of a chest, in range and spread."""
    return np.random.default_rng(seed).normal(-200, 500, shape).astype(np.float32)


class ManyLayers(nn.Module):
    """Layers of flax that our networks lack: strides, gaps, groups, other functions."""

    channels: int = 1
    dtype: jnp.dtype | None = None

    radius = None
    stride = 4

    @nn.compact
    def __call__(self, x, *, train=False):
        y = nn.Conv(8, (3, 3), strides=2, name="down1")(x)
        y = nn.gelu(nn.GroupNorm(2, name="norm1")(y))
        y = nn.Conv(8, (3, 3), strides=2, feature_group_count=4, name="down2")(y)
        y = nn.leaky_relu(nn.LayerNorm(name="norm2")(y), 0.1)
        y = nn.silu(nn.Conv(8, (3, 3), kernel_dilation=2, name="wide")(y))
        weight = nn.softmax(nn.Dense(8, name="weight")(y.mean((1, 2))))
        y = y * weight[:, None, None] + nn.Dense(8, name="dense")(jnp.tanh(y))
        y = nn.ConvTranspose(4, (4, 4), strides=(2, 2), name="up1")(y)
        y = nn.avg_pool(nn.relu(y), (2, 2), (2, 2))
        y = nn.ConvTranspose(4, (2, 2), strides=(4, 4), name="up2")(nn.elu(y))
        y = y + 0.1 * (y > 0).astype(jnp.float32) + jnp.where(y < 0.1, y, 0.2)
        y = nn.Conv(1, (3, 3), name="last")(y + jnp.abs(y) ** 3)
        middle = x[..., x.shape[-1] // 2, None]
        return middle + 0.3 * jnp.sin(jnp.clip(y, -2, 2)).astype(jnp.float32)


class KnowsPlaces(nn.Module):
    """A constant of the images' size is part of it."""

    channels: int = 1
    dtype: jnp.dtype | None = None

    radius = 1
    stride = 1

    @nn.compact
    def __call__(self, x, *, train=False):
        places = jnp.linspace(0, 0.1, x.shape[1])[None, :, None, None]
        return (nn.Conv(1, (3, 3), name="conv")(x) + places).astype(jnp.float32)


class JoinsOnes(KnowsPlaces):
    """Joins images with ones, which the graph does not repeat."""

    @nn.compact
    def __call__(self, x, *, train=False):
        joined = jnp.concatenate([x, jnp.ones_like(x)], axis=-1)
        return nn.Conv(1, (3, 3), name="conv")(joined)


class Sorts(KnowsPlaces):
    """Has an operation that no ONNX node is written for."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return jnp.sort(nn.Conv(1, (3, 3), name="conv")(x), axis=1)

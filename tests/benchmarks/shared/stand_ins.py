"""Small files in place of those that a user gives to a benchmark."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import acq
from acq.layers.float import FloatLayers
from acq.models import create_network
from common.typing import PyTree
from configs import ipv2_ffm
from ipv2.tasks.train import train
from tests.acq import foreign_state_dicts

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLASSES = 10
_UPDATES = 20  # enough to move the running statistics to those of the images


def write_weights(path: Path) -> None:
    """Writes weights of a CIFAR ResNet-8 with random kernels as an .npz."""
    names = foreign_state_dicts.akamaster(1)
    np.savez(path, **foreign_state_dicts.tensors_of(_variables(), names))


def write_images(path: Path, count: int) -> None:
    """Writes random images (count, 32, 32, 3) and that network's labels as an .npz."""
    images = _images(count)
    logits, _ = jax.jit(_network().apply)(_variables(), _normalised(images))
    np.savez(path, images=images, labels=np.argmax(logits, axis=1))


def write_quantized(workdir: Path, *, seed: int) -> None:
    """Writes the export of that network after two steps of quantization."""
    small = acq.quantize(
        "resnet8",
        _variables(),
        mean=_MEAN,
        std=_STD,
        classes=_CLASSES,
        generator_steps=2,
        steps=2,
        batch_size=8,
        seed=seed,
        generator=acq.GeneratorSettings(width=4, latent=4),
    )
    small.save(workdir / "export")


def train_flow(workdir: Path) -> None:
    """Trains the smallest flow for a few steps on the phantom."""
    config = ipv2_ffm.get_config("smoke")
    config.model.name = "fm"  # compiles in a third of the time of FFM
    config.data.cache = str(workdir.parent / "datasets")
    train(config, workdir)


def _network():
    return create_network("resnet8", FloatLayers(), _CLASSES)


@functools.cache
def _variables() -> PyTree:
    """Random kernels, and the BatchNorm statistics of random images."""
    network, x = _network(), _normalised(_images(32))
    variables = jax.jit(network.init)(jax.random.key(0), x)

    @jax.jit
    def update(variables):
        return network.apply(variables, x, train=True, mutable=["batch_stats"])[1]

    for _ in range(_UPDATES):
        variables = {**variables, **update(variables)}
    return jax.device_get(variables)


def _images(count: int) -> np.ndarray:
    shape = (count, 32, 32, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _normalised(images: np.ndarray) -> jax.Array:
    mean, std = (np.asarray(values, np.float32) for values in (_MEAN, _STD))
    x = (images / np.float32(255) - mean) / std
    return jnp.asarray(x)

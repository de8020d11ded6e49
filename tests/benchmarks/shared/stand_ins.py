"""Small files in place of those that a user gives to a benchmark."""

from pathlib import Path

import numpy as np

import acq
from acq.layers.float import FloatLayers
from acq.models import create_network
from configs import ipv2_ffm
from ipv2.tasks.train import train
from tests.acq import foreign_state_dicts

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLASSES = 10


def write_weights(path: Path) -> None:
    """Writes random weights of a CIFAR ResNet-8 as an .npz."""
    network = create_network("resnet8", FloatLayers(), _CLASSES)
    variables = foreign_state_dicts.random_variables(network)
    tensors = foreign_state_dicts.tensors_of(
        variables, foreign_state_dicts.akamaster(1)
    )
    np.savez(path, **tensors)


def write_images(path: Path, count: int) -> None:
    """Writes random images (count, 32, 32, 3) with labels as an .npz."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % _CLASSES)


def write_quantized(workdir: Path, *, seed: int) -> None:
    """Writes the export of a ResNet-8 that learned for two steps."""
    network = create_network("resnet8", FloatLayers(), _CLASSES)
    small = acq.quantize(
        "resnet8",
        foreign_state_dicts.random_variables(network),
        mean=_MEAN,
        std=_STD,
        classes=_CLASSES,
        generator_steps=2,
        steps=2,
        batch_size=4,
        seed=seed,
        generator=acq.GeneratorSettings(width=4, latent=4),
    )
    small.save(workdir / "export")


def train_flow(workdir: Path) -> None:
    """Trains the smallest FFM for a few steps on the phantom."""
    config = ipv2_ffm.get_config("smoke")
    config.data.cache = str(workdir.parent / "datasets")
    train(config, workdir)

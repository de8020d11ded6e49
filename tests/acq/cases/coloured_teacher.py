"""A network that tells twelve colours, with weights, and images of them.

It is right on nearly all of its images, and its BatchNorm statistics are theirs, as
those of a trained network are; made in a second, without training.
"""

import functools
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from acq.classifier import Classifier, Normalisation, Record
from acq.datasets.eval_data import EvalData
from acq.layers.float import FloatLayers
from acq.training.losses import layer_statistics
from tests.acq.own_network import PlainNet

SIZE = 16
CLASSES = 12
OF_CLASS = 12
MEAN, STD = (0.58, 0.38, 0.52), (0.2, 0.2, 0.2)


def coloured_images(seed: int, of_class: int = OF_CLASS):
    """Returns uint8 images and labels; on average a little more red than blue."""
    rng = np.random.default_rng(seed)
    labels = np.arange(of_class * CLASSES) % CLASSES
    red, green = 90 + 60 * (labels % 3), 30 + 45 * (labels // 3)
    blue = 75 + 60 * ((labels + 1) % 3)
    colours = np.stack([red, green, blue], axis=-1)
    noise = rng.normal(0, 20, (len(labels), SIZE, SIZE, 3))
    images = colours[:, None, None] + noise
    return np.clip(np.round(images), 0, 255).astype(np.uint8), labels


@functools.cache
def coloured_weights() -> dict[str, np.ndarray]:
    """Returns the network's tensors by our names."""
    images, labels = coloured_images(seed=1, of_class=20)
    x = ((images / 255 - MEAN) / STD).astype(np.float32)
    network = PlainNet(FloatLayers(), CLASSES)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    apply = jax.jit(
        lambda v, x, train: network.apply(
            v, x, train, mutable=["batch_stats", "bn_inputs"]
        ),
        static_argnums=2,
    )
    _, changed = apply(variables, x, True)
    variables = {
        "params": variables["params"],
        "batch_stats": {
            name: {"mean": mean, "var": var}
            for name, (mean, var) in layer_statistics(changed["bn_inputs"]).items()
        },
    }
    (_, features), _ = apply(variables, x, False)
    pooled = np.mean(np.asarray(features, np.float64), (1, 2))
    centers = np.stack([pooled[labels == k].mean(0) for k in range(CLASSES)])
    within = np.cov((pooled - centers[labels]).T) + 1e-6 * np.eye(pooled.shape[1])
    kernel = np.linalg.solve(within, centers.T)
    tensors = {
        "/".join(path): np.asarray(leaf)
        for path, leaf in flatten_dict(variables).items()
    }
    tensors["params/head/kernel"] = kernel.astype(np.float32)
    tensors["params/head/bias"] = (-np.sum(centers.T * kernel, 0) / 2).astype(
        np.float32
    )
    return tensors


def write_teacher(
    folder: Path, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> list[str]:
    """Writes the weights; returns the overrides that name them."""
    np.savez(folder / "teacher.npz", **coloured_weights())
    return [
        "--config.teacher.source=weights",
        "--config.teacher.name=tests.acq.own_network:PlainNet",
        f"--config.teacher.weights={folder / 'teacher.npz'}",
        "--config.teacher.depth=0",
        f"--config.teacher.classes={CLASSES}",
        f"--config.teacher.image_size={SIZE}",
        f"--config.teacher.mean={mean}",
        f"--config.teacher.std={std}",
    ]


def coloured_teacher(
    mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> Classifier:
    """Returns the loaded network, with its own copy of the variables."""
    tensors = {
        tuple(name.split("/")): leaf.copy() for name, leaf in coloured_weights().items()
    }
    record = Record(
        name="coloured",
        classes=CLASSES,
        image_size=SIZE,
        normalisation=Normalisation(mean=mean, std=std),
        source="teacher.npz",
    )
    return Classifier(
        network=PlainNet(FloatLayers(), CLASSES),
        variables=unflatten_dict(tensors),
        record=record,
    )


def coloured_data(of_class: int = OF_CLASS) -> EvalData:
    """Returns images that the network has not seen, as evaluation data."""
    images, labels = coloured_images(seed=3, of_class=of_class)
    return EvalData(
        name="coloured",
        images=images,
        labels=labels.astype(np.int32),
        classes=CLASSES,
    )

"""Checks whether evaluation images are preprocessed like the teacher's training images.

The teacher's BatchNorm layers hold mean and variance of their inputs. Images with
another preprocessing (another mean and std, 0 to 255, colours reversed) have others
there. The result is only reported: nothing is trained on the images, and no number of
the run depends on them.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from acq.accuracy import classes_of
from acq.classifier import Classifier, Normalisation
from acq.datasets.eval_data import EvalData
from acq.training.losses import layer_statistics
from common.typing import PyTree

MOST_IMAGES = 256
FEWEST_JUDGED = 16
FAR = 0.5
"""From this distance on the preprocessing is wrong. For a ResNet-20 of CIFAR-10, 16 or
more of its test images have 0.18 to 0.28, and those of one class up to 0.34. With mean
and std 0.5 they have 0.74, without normalisation 1.5, and from 0 to 255 they have 30.
0.5 is the geometric mean of 0.34 and 0.74."""
LEAST_COLOURED = 128
REVERSED_FITS = 0.9
"""Reversed colours must lower the shift of means to this share. For 128 or more images
of that network they give 0.60 to 0.82 if they are right and 1.2 to 1.7 if wrong."""
_CHUNK = 64
# As in BatchNorm: a constant channel has no scale.
_SMALL = 1e-5
_IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CIFAR = Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))
_MNIST = Normalisation(mean=(0.1307,), std=(0.3081,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputStatistics:
    """Statistics of some images at a network's BatchNorm layers.

    A layer's distance is the sum of two medians over channels: of the shift of the mean
    in running standard deviations, |m - mean| / sqrt(var), and of |log(v / var)|.

    Attributes:
      images: Number of images.
      correct: Number of images that the network classifies correctly.
      layers: Distance of each layer by name; 0 for the statistics of training.
      shift: Median over layers of the first of the two medians.
    """

    images: int
    correct: int
    layers: dict[str, float]
    shift: float

    @property
    def distance(self) -> float:
        """Median of the layers' distances; a NaN counts as infinite."""
        return float(np.median(list(self.layers.values())))

    def worst(self, count: int = 3) -> dict[str, float]:
        """Returns the layers with the largest distances, largest first."""
        return dict(sorted(self.layers.items(), key=lambda x: -x[1])[:count])

    def to_json(self) -> dict[str, Any]:
        """Returns the entry for `results.json`."""
        return {
            "images": self.images,
            "distance": round(self.distance, 4),
            "worst_layers": {k: round(v, 4) for k, v in self.worst().items()},
        }

    def words(self) -> str:
        """Returns the distance and the worst layers, for a line of the log."""
        layers = ", ".join(f"{name} {d:.2f}" for name, d in self.worst().items())
        return f"{self.distance:.2f} (worst: {layers})"


def measure_input_statistics(teacher: Classifier, data: EvalData) -> InputStatistics:
    """Returns statistics of at most `MOST_IMAGES` images, evenly of every class."""
    return _measure(teacher, _few(data), teacher.record.normalisation)


def preparation_warnings(
    found: InputStatistics, teacher: Classifier, data: EvalData
) -> list[str]:
    """Returns a warning if another preprocessing of the images fits better.

    With fewer than `FEWEST_JUDGED` images there is no warning.

    Args:
      found: Statistics of the same teacher and data.
      teacher: With the mean and std to check.
      data: Some of its images are tried with other preprocessing.
    """
    few = _few(data)
    if found.images < FEWEST_JUDGED:
        return []
    if found.distance >= FAR:
        return [_far(found, teacher, few)]
    if found.images < LEAST_COLOURED or teacher.record.channels != 3:
        return []
    reversed_colours = _measure(
        teacher, _reverse_colours(few), teacher.record.normalisation
    )
    fits = reversed_colours.shift < REVERSED_FITS * found.shift
    if not fits or reversed_colours.correct <= found.correct:
        return []
    return [
        "the teacher seems to take colours in another order: with red and blue "
        f"swapped it gets {reversed_colours.correct} instead of {found.correct} of "
        f"{found.images} images right, and the means at its BatchNorm layers are off "
        f"by {reversed_colours.shift:.2f} instead of {found.shift:.2f} standard "
        "deviations. Swap the channels of the images (or of the first kernel)."
    ]


def _far(found: InputStatistics, teacher: Classifier, few: "_Few") -> str:
    text = (
        "the evaluation images are not prepared as the teacher's training images were: "
        f"at its BatchNorm layers their distance is {found.words()}; {FAR} and more is "
        "far. "
    )
    given = teacher.record.normalisation
    others = {
        words: _measure(teacher, few, way).distance for words, way in _other_ways(given)
    }
    if teacher.record.channels == 3:
        swapped = _measure(teacher, _reverse_colours(few), given)
        others["red and blue swapped"] = swapped.distance
    best = min(others, key=others.__getitem__)
    if others[best] < min(FAR, found.distance / 2):
        return f"{text}With {best} it would be {others[best]:.2f}."
    return (
        f"{text}Likely causes: config.teacher.mean and std of other images, a network "
        "that takes 0 to 255, other images than it learnt, or weights of another "
        "variant of the network."
    )


def _other_ways(given: Normalisation) -> Iterator[tuple[str, Normalisation]]:
    """Yields common preprocessings, as words and as mean and std, except the given."""
    channels = len(given.mean)

    def alike(mean: float, std: float) -> Normalisation:
        return Normalisation(mean=(mean,) * channels, std=(std,) * channels)

    ways = [
        ("images in [0, 1] as they are (mean 0, std 1)", alike(0.0, 1.0)),
        ("images in [-1, 1] (mean and std 0.5)", alike(0.5, 0.5)),
        ("images from 0 to 255 as they are (mean 0, std 1/255)", alike(0.0, 1 / 255)),
    ]
    known = {3: (("ImageNet", _IMAGENET), ("CIFAR", _CIFAR)), 1: (("MNIST", _MNIST),)}
    for name, way in known.get(channels, ()):
        ways.append((f"mean {way.mean} and std {way.std}, {name}'s,", way))
    return ((words, way) for words, way in ways if way != given)


@dataclasses.dataclass(frozen=True, eq=False)
class _Few:
    """The images for the check, and their labels."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: np.ndarray


def _few(data: EvalData) -> _Few:
    some = data.spread(MOST_IMAGES)
    count = len(some)
    # Whole chunks, so that all chunks have one shape.
    count = count if count < _CHUNK else count // _CHUNK * _CHUNK
    return _Few(some.images[np.arange(count)], some.labels[:count])


def _reverse_colours(few: _Few) -> _Few:
    return _Few(few.images[..., ::-1], few.labels)


def _measure(teacher: Classifier, few: _Few, way: Normalisation) -> InputStatistics:
    forward = _make_forward(teacher.network)
    logits, means, squares = [], [], []
    for start in range(0, len(few.images), _CHUNK):
        images = few.images[start : start + _CHUNK]
        x = way.normalise(jnp.asarray(images, jnp.float32) / 255.0)
        out, statistics = forward(teacher.variables, x)
        logits.append(np.asarray(out))
        found = _by_layer(statistics)
        means.append({name: m for name, (m, _) in found.items()})
        squares.append({name: v + m**2 for name, (m, v) in found.items()})
    layers, shifts = {}, []
    for name, (mean, var) in _by_layer(teacher.variables["batch_stats"]).items():
        m = np.mean([chunk[name] for chunk in means], axis=0)
        v = np.mean([chunk[name] for chunk in squares], axis=0) - m**2
        var = var + _SMALL
        shift = np.median(np.abs(m - mean) / np.sqrt(var))
        ratio = np.median(np.abs(np.log((np.maximum(v, 0) + _SMALL) / var)))
        layers[name] = _finite(shift + ratio)
        shifts.append(_finite(shift))
    right = classes_of(np.concatenate(logits)) == few.labels
    return InputStatistics(
        images=len(few.images),
        correct=int(np.sum(right)),
        layers=layers,
        shift=float(np.median(shifts)),
    )


def _by_layer(statistics: PyTree) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns mean and variance of each layer, in float64."""
    return {
        name: (np.asarray(mean, np.float64), np.asarray(var, np.float64))
        for name, (mean, var) in layer_statistics(
            jax.tree.map(jnp.asarray, statistics)
        ).items()
    }


def _finite(value: np.floating[Any]) -> float:
    """Returns the value, or infinity for NaN, so that it is the largest."""
    return float(value) if np.isfinite(value) else float("inf")


@functools.cache
def _make_forward(network: nn.Module) -> Callable[[PyTree, jax.Array], Any]:
    """Returns `forward(variables, x) -> (logits, statistics)`, compiled once."""

    @jax.jit
    def forward(
        variables: PyTree, x: Float32[jax.Array, "n h w c"]
    ) -> tuple[jax.Array, PyTree]:
        (logits, _), changed = network.apply(variables, x, mutable=["bn_inputs"])
        return logits.astype(jnp.float32), changed["bn_inputs"]

    return forward

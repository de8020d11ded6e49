"""Accuracy of a classifier, and fidelity of a student to its teacher.

The results do not depend on the batch size or the number of devices.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, UInt8

from acq.classifier import Normalisation
from acq.datasets.eval_data import Rows
from acq.datasets.unusable import reporting_all_unusable
from acq.training.losses import distillation_loss
from common.devices import AXIS, pmap_eval, replicate, to_host
from common.pipeline import read_ahead
from common.progress import Progress
from common.typing import PyTree

Apply = Callable[[PyTree, Float[Array, "n h w c"]], Float[Array, "n k"]]
NOT_FINITE = -1
"""The class of an image of which a logit is infinite or not a number."""


class Accuracy(NamedTuple):
    """Number of correctly classified images.

    Attributes:
      correct: Images whose highest logit is that of their label.
      n: All images.
    """

    correct: int
    n: int

    @property
    def top1(self) -> float:
        """Share of correct images, in percent."""
        return 100.0 * self.correct / self.n


class Fidelity(NamedTuple):
    """Fidelity of a student to its teacher.

    Attributes:
      agreement: Share of images that both give the same class, in percent.
      kl: KL(teacher || student) of the softmax in nats, a mean over images; None if a
        logit is not finite.
    """

    agreement: float
    kl: float | None


class OneRight(NamedTuple):
    """Images that one of two networks has right and the other wrong.

    Attributes:
      first: Images that only the first network has right.
      second: Images that only the second one has right.
    """

    first: int
    second: int


@functools.cache
def logits_of(network: nn.Module) -> Apply:
    """Returns `apply(variables, x) -> logits` of a network in evaluation mode.

    Args:
      network: Returns logits and features, like those of `acq.models`.

    Returns:
      The same function for the same network, so that it compiles only once.
    """

    def apply(variables: PyTree, x: jax.Array) -> jax.Array:
        logits, _ = network.apply(variables, x)
        return logits

    return apply


def measure_accuracy(
    logits: Float32[np.ndarray, "n k"], labels: Int[np.ndarray, "n"]
) -> Accuracy:
    """Returns the accuracy of a classifier's logits."""
    return Accuracy(int(np.sum(classes_of(logits) == labels)), len(labels))


def count_one_right(
    first: Float32[np.ndarray, "n k"],
    second: Float32[np.ndarray, "n k"],
    labels: Int[np.ndarray, "n"],
) -> OneRight:
    """Returns the images that only one of two networks classifies correctly."""
    a, b = (classes_of(logits) == labels for logits in (first, second))
    return OneRight(int(np.sum(a & ~b)), int(np.sum(b & ~a)))


def measure_fidelity(
    student: Float32[np.ndarray, "n k"], teacher: Float32[np.ndarray, "n k"]
) -> Fidelity:
    """Returns the fidelity of a student's logits to its teacher's on the same images.

    Fidelity is not accuracy: see Stanton et al., NeurIPS 2021.
    """
    classes = classes_of(student)
    same = (classes == classes_of(teacher)) & (classes != NOT_FINITE)
    agreement = 100.0 * float(np.mean(same))
    if not (np.isfinite(student).all() and np.isfinite(teacher).all()):
        return Fidelity(agreement, None)
    kl = distillation_loss(jnp.asarray(student), jnp.asarray(teacher), temperature=1)
    return Fidelity(agreement, float(kl))


def classes_of(logits: Float32[np.ndarray, "n k"]) -> Int32[np.ndarray, "n"]:
    """Returns each image's class: its highest logit, or the first of equal ones.

    An image with a logit that is not finite has the class NOT_FINITE.
    """
    finite = np.isfinite(logits).all(-1)
    return np.where(finite, np.argmax(logits, -1), NOT_FINITE).astype(np.int32)


def predict(
    apply: Apply,
    variables: PyTree,
    images: Rows,
    *,
    batch_size: int,
    normalisation: Normalisation,
    name: str = "evaluate",
) -> Float32[np.ndarray, "n k"]:
    """Returns the logits of every image.

    Threads read batches while the devices work. The last batch is filled with black
    images, which are not counted, so that all batches have one shape.

    Args:
      apply: `apply(variables, x) -> logits`, with x float32 and normalised. Each
        function compiles once, so give the same one again, as `logits_of` does.
      variables: Of the classifier; the same in every process.
      images: Gives uint8 NHWC when indexed with an array of positions.
      batch_size: Images at once over all devices, rounded up to a multiple of them.
      normalisation: Makes network inputs from images in [0, 1].
      name: Of the work, for the progress line.

    Returns:
      Logits, in the order of the images. The same in every process.

    Raises:
      ValueError: There are no images.
      UserError: Some images cannot be used; the message names them.
    """
    count = len(images)
    if not count:
        raise ValueError("there are no images to predict")
    size = _whole_batch(batch_size, count)
    step = pmap_eval(_make_predict(apply, normalisation))
    variables = replicate(variables)
    found, order = [], []
    with Progress(name, count, "images") as progress, reporting_all_unusable(images):
        for places, logits in _one_late(
            step(variables, shard)
            for shard in read_ahead(
                functools.partial(_read_shard, images, size), range(0, count, size)
            )
        ):
            real = places >= 0
            found.append(logits[real])
            order.append(places[real])
            progress.update(len(order[-1]))
    return np.concatenate(found)[np.argsort(np.concatenate(order))]


@functools.cache
def _make_predict(
    apply: Apply, normalisation: Normalisation
) -> Callable[[PyTree, Any], tuple[Array, Array]]:
    """Returns `predict(variables, shard) -> (places, logits)` of all devices."""

    def predict_shard(variables: PyTree, shard: Any) -> tuple[Array, Array]:
        images: UInt8[Array, "b h w c"] = shard["images"]
        x = normalisation.normalise(images.astype(jnp.float32) / 255.0)
        logits = apply(variables, x).astype(jnp.float32)
        # With the positions, so that the order of the devices does not matter.
        return jax.lax.all_gather((shard["places"], logits), AXIS)

    return predict_shard


def _whole_batch(batch_size: int, count: int) -> int:
    """Returns images per step: at most `count`, rounded up to a multiple of devices."""
    devices = jax.device_count()
    return -(-min(batch_size, count) // devices) * devices


def _read_shard(images: Rows, size: int, start: int) -> dict[str, np.ndarray]:
    """Returns this process's part of the batch that begins at `start`, by device."""
    own = size // jax.process_count()
    first = start + own * jax.process_index()
    places = np.arange(first, min(first + own, len(images)))
    missing = own - len(places)
    read = np.pad(images[places], ((0, missing), (0, 0), (0, 0), (0, 0)))
    places = np.pad(places.astype(np.int32), (0, missing), constant_values=-1)
    devices = jax.local_device_count()
    return {
        "images": read.reshape(devices, -1, *read.shape[1:]),
        "places": places.reshape(devices, -1),
    }


def _one_late(
    results: Iterator[Any],
) -> Iterator[tuple[Int[np.ndarray, "b"], Float32[np.ndarray, "b k"]]]:
    """Fetches each result after the next one has been started."""
    before = None
    for result in results:
        if before is not None:
            yield _fetch(before)
        before = result
    if before is not None:
        yield _fetch(before)


def _fetch(result: Any) -> tuple[Int[np.ndarray, "b"], Float32[np.ndarray, "b k"]]:
    places, logits = to_host(result)
    # Every device has gathered the whole result.
    return places[0].ravel(), logits[0].reshape(-1, logits.shape[-1])

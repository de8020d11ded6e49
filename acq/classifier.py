"""A float classifier with its variables and a record of inputs and outputs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from acq.layers.float import Layers
from common.errors import UserError
from common.typing import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Makes network inputs from images in [0, 1]: (image - mean) / std.

    Attributes:
      mean: Per channel, in units of the images.
      std: Per channel, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError if the lengths differ or a std is not above 0."""
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ValueError(
                "mean and std need one number per channel, std above 0; got "
                f"{self.mean} and {self.std}"
            )

    def normalise(self, images: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Returns the network inputs of images in [0, 1]."""
        return (images - _channels(self.mean, images)) / _channels(self.std, images)

    def denormalise(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Returns the images of network inputs; inverts `normalise`."""
        return x * _channels(self.std, x) + _channels(self.mean, x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Description of a classifier, without its variables.

    Attributes:
      name: Of the network: one of `NETWORKS`, or 'package.module:Class'.
      options: Attributes of the network that its name does not define.
      classes: Number of logits.
      image_size: Side of its square input images.
      normalisation: Of its input images.
      source: File or address of its weights; '' if they were never in a file.
      sha256: Of that file, or of the variables of an export; '' if `source` is ''.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    classes: int
    image_size: int
    normalisation: Normalisation
    source: str = ""
    sha256: str = ""

    @property
    def black(self) -> tuple[float, ...]:
        """Black as a network input, per channel."""
        per_channel = self.normalisation
        return tuple(
            -mean / std
            for mean, std in zip(per_channel.mean, per_channel.std, strict=True)
        )

    @property
    def input_range(self) -> tuple[float, float]:
        """The smallest and largest network input that an image can give."""
        per_channel = self.normalisation
        white = [
            (1 - mean) / std
            for mean, std in zip(per_channel.mean, per_channel.std, strict=True)
        ]
        return min(self.black), max(white)

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return len(self.normalisation.mean)

    def image_shape(self, count: int) -> tuple[int, int, int, int]:
        """Shape of a batch of `count` images, NHWC."""
        return count, self.image_size, self.image_size, self.channels

    def to_json(self) -> dict[str, Any]:
        """Returns the record as a manifest holds it; `from_json` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Record":
        """Returns the record from the result of `to_json`.

        Raises:
          UserError: The input is not such a record.
        """
        try:
            per_channel = found["normalisation"]
            normalisation = Normalisation(
                mean=tuple(per_channel["mean"]), std=tuple(per_channel["std"])
            )
            others: dict[str, Any] = {**found, "normalisation": normalisation}
            return cls(**others)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"not the record of a classifier ({error}); got {dict(found)!r}. "
                "Another version of this software wrote it: export the classifier "
                "again."
            ) from error


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A float network, its variables, and its record.

    Attributes:
      network: Takes (n, h, w, c), normalised, and `train`; returns logits (n, classes)
        and features (n, h', w', k). It has the attributes `layers` and `classes`.
      variables: `params` and `batch_stats`, float32.
      record: Its description.
    """

    network: nn.Module
    variables: PyTree
    record: Record

    def with_layers(self, layers: Layers) -> nn.Module:
        """Returns the same network made with other layers."""
        return self.network.clone(layers=layers)


def _channels(values: tuple[float, ...], images: jax.Array) -> jax.Array:
    if images.shape[-1] != len(values):
        raise ValueError(
            f"images of {images.shape[-1]} channels, but the classifier takes "
            f"{len(values)}"
        )
    return jnp.asarray(values, jnp.float32).reshape(
        (1,) * (images.ndim - 1) + (len(values),)
    )

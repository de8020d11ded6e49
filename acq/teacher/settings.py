"""Settings of the float teacher, and its record and network."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn

from acq.classifier import Normalisation, Record
from acq.layers.float import FloatLayers
from acq.models import cifar_resnet, create_network, find_network
from acq.teacher.own_network import create_own_network

OPTIONS = ("shortcut", "stride_in_first", "width_multiplier", "hidden")
"""Attributes that the names of networks leave open."""

Source = Literal["weights", "digits", "random"]
SOURCES: tuple[Source, ...] = ("weights", "digits", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """The float network to quantize; `config.teacher` in messages.

    0, '', () and None leave a value to the export, the file or the name.

    Attributes:
      source: `weights`: a file, an export or the hub. `digits`: the embedded default,
        which the run trains. `random`: untrained, to try a recipe without weights.
      name: of `acq.models`, or 'package.module:Class' for your own network.
      depth: of a CIFAR ResNet; overrides the name.
      shortcut: of a CIFAR ResNet: zero_pad, projection.
      stride_in_first: of ResNet-50: whether strides are in the first convolution.
      width_multiplier: of MobileNetV2.
      hidden: width of VGG's dense layers.
      classes: number of logits.
      image_size: side of the square images, in pixels.
      mean: of the images in [0, 1], per channel.
      std: of the images, per channel, above 0.
      weights: path of a file of weights, or of an export's folder.
      weights_key: of a checkpoint with weights of several networks, the key of those to
        take, such as 'state_dict_ema'.
      hub_repo: repository of the Hugging Face hub; used if `weights` is ''.
      hub_file: path in that repository.
      hub_revision: a commit, tag or branch of that repository.
      hub_sha256: expected hash of the hub's file; '' for any.
      sha256: expected hash of any file of weights; overrides `hub_sha256`.
    """

    source: Source = "weights"
    name: str
    depth: int = 0
    shortcut: str = ""
    stride_in_first: bool | None = None
    width_multiplier: float | int = 0.0
    hidden: int = 0
    classes: int = 0
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    weights: str = ""
    weights_key: str = ""
    hub_repo: str = ""
    hub_file: str = ""
    hub_revision: str = "main"
    hub_sha256: str = ""
    sha256: str = ""

    @property
    def network_name(self) -> str:
        """Name of the network; `depth` overrides `name`."""
        return cifar_resnet(self.depth) if self.depth else self.name

    @property
    def options(self) -> dict[str, Any]:
        """Attributes that the network's name leaves open and these settings set."""
        values = {key: getattr(self, key) for key in OPTIONS}
        return {key: value for key, value in values.items() if value}


def stated_record(settings: TeacherSettings) -> Record:
    """Returns the teacher's record from the settings, without source and hash.

    Args:
      settings: With `mean` and `std`.
    """
    name = settings.network_name
    own = find_network(name)
    return Record(
        name=name,
        options=settings.options,
        classes=settings.classes or (own.classes if own else 0),
        image_size=settings.image_size or (own.image_size if own else 0),
        normalisation=Normalisation(mean=settings.mean, std=settings.std),
    )


def scale_problems(mean: tuple[float, ...], std: tuple[float, ...]) -> list[str]:
    """Returns a line for each of mean and std that is for images in [0, 255].

    A line begins with its config key and gives the value for images in [0, 1].
    """
    is_large = {"mean": any(m > 1 for m in mean), "std": any(s > 1 for s in std)}
    # A mean in 0..255 with a std of 1: the images were not divided.
    is_large["std"] |= is_large["mean"] and any(s >= 1 for s in std)
    return [
        f"teacher.{key}: got {values}, accepted: of images in [0, 1], at most 1; "
        f"divide by 255: {tuple(float(f'{v / 255:.4g}') for v in values)}"
        for key, values in (("mean", mean), ("std", std))
        if is_large[key]
    ]


def create_teacher(record: Record) -> nn.Module:
    """Returns the float network of a record.

    Raises:
      UserError: There is no such network.
    """
    if ":" in record.name:
        return create_own_network(record.name, record.classes, **record.options)
    return create_network(record.name, FloatLayers(), record.classes, **record.options)

"""The units that networks compute in, with the conversions from HU and back.

Every network of this project computes in HU / 1000, `ScaledHU`. The network that the
authors of FFM published computes in `WindowedGrey`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from ipv2.models.blocks import hu_to_unit, unit_to_hu


@dataclasses.dataclass(frozen=True)
class ScaledHU:
    """HU / 1000, see `blocks`; a stack's channels are neighbouring slices."""

    name: ClassVar[str] = "HU/1000"
    equal_channels: ClassVar[bool] = False

    def from_hu(self, hu: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns HU / 1000."""
        return hu_to_unit(hu)

    def to_hu(
        self, unit: Float[Array, "*shape"], original: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Returns HU of a network's output; the input's HU `original` do not count."""
        del original
        return unit_to_hu(unit)

    def to_json(self) -> dict[str, Any]:
        """Returns the keys of a manifest."""
        return {"unit": self.name}

    def describe(self) -> str:
        """Returns the unit in words."""
        return self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowedGrey:
    """Grey levels of a window of HU in [-1, 1]; all channels hold the same slice.

        grey = clip((HU - centre) / (width / 2), -1, 1)

    All HU below the window have the grey level -1, and all above it 1. So such a
    network cannot return HU outside of its window. A pixel whose input lies outside
    keeps the input's HU, unchanged. All other pixels get the network's result, clipped
    to the window.

    Attributes:
      centre_hu: centre of the window.
      width_hu: width of the window, above 0.

    Raises:
      ValueError: The width is not above 0.
    """

    centre_hu: float
    width_hu: float

    name: ClassVar[str] = "windowed grey"
    equal_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Checks the width."""
        if not self.width_hu > 0:
            raise ValueError(f"width_hu: got {self.width_hu}, accepted: above 0")

    @property
    def limits_hu(self) -> tuple[float, float]:
        """(lowest, highest) HU of the window."""
        half = self.width_hu / 2
        return self.centre_hu - half, self.centre_hu + half

    def from_hu(self, hu: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns grey levels in [-1, 1]."""
        return jnp.clip((hu - self.centre_hu) / (self.width_hu / 2), -1, 1)

    def to_hu(
        self, unit: Float[Array, "*shape"], original: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Returns HU of grey levels; `original` where that lies outside of the window.

        Args:
          unit: the network's grey levels.
          original: HU of the input.
        """
        low, high = self.limits_hu
        grey = jnp.clip(unit.astype(jnp.float32), -1, 1)
        hu = grey * (self.width_hu / 2) + self.centre_hu
        return jnp.where((original >= low) & (original <= high), hu, original)

    def to_json(self) -> dict[str, Any]:
        """Returns the keys of a manifest."""
        return {"unit": self.name, "window": [self.centre_hu, self.width_hu]}

    def describe(self) -> str:
        """Returns the unit in words."""
        low, high = self.limits_hu
        return f"{self.name} of {low:g} to {high:g} HU"


SCALED_HU = ScaledHU()
"""The unit of every network of this project."""

Unit: TypeAlias = ScaledHU | WindowedGrey

NAMES = (ScaledHU.name, WindowedGrey.name)
"""What a manifest's key `unit` may hold."""


def unit_from_json(manifest: Mapping[str, Any]) -> Unit:
    """Returns the unit that a manifest's keys `unit` and `window` describe.

    Raises:
      KeyError, TypeError, ValueError: They do not describe a unit.
    """
    if manifest["unit"] == ScaledHU.name:
        return SCALED_HU
    if manifest["unit"] == WindowedGrey.name:
        centre, width = manifest["window"]
        return WindowedGrey(centre_hu=float(centre), width_hu=float(width))
    raise ValueError(f"unit: got {manifest['unit']!r}, accepted: {', '.join(NAMES)}")

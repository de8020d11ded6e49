"""The description of a denoiser without its variables, as exports store it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from common.devices import AXIS
from ipv2.models import (
    FLOWS,
    MODELS,
    attributes_of,
    check_own_network,
    create_model,
)
from ipv2.models.units import SCALED_HU, Unit, unit_from_json
from ipv2.training.denoiser import Denoiser, Flow, Regression
from ipv2.training.flow import SAMPLERS
from ipv2.training.losses import create_loss

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a flow is integrated from the noisy image to the clean one.

    The defaults are those of this project's recipes; FFM was published with 50 steps.

    Attributes:
      sampler: a name of `flow.SAMPLERS`.
      steps: steps of the sampler, at least 1.
      dropout_in_evaluation: whether to drop activations when denoising too, see `Flow`.

    Raises:
      ValueError: A value is not accepted.
    """

    sampler: str = "euler"
    steps: int = 8
    dropout_in_evaluation: bool = False

    def __post_init__(self) -> None:
        """Checks every value."""
        if self.sampler not in SAMPLERS:
            raise ValueError(
                f"sampler: got {self.sampler!r}, accepted: {sorted(SAMPLERS)}"
            )
        if self.steps < 1:
            raise ValueError(f"steps: got {self.steps}, accepted: at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserSpec:
    """A denoiser without the values of its variables.

    Hashable. Equal denoisers have equal specs.

    Attributes:
      name: a name of `models.MODELS`, or 'package.module:Class' of a user's own
        network.
      dtype: the dtype in which the layers compute: 'float32' or 'bfloat16'.
      channels: number of neighbouring input slices, odd; the middle one is denoised.
      attributes: the network's other attributes that differ from its defaults. Those
        of a flow include `time_scale`. Lists become tuples.
      sampling: how a flow is integrated; None for a network that denoises in one call.
      unit: unit that the network computes in. `WindowedGrey`, of flows only, is for the
        published FFM; `channels` then hold the same slice.

    Raises:
      ValueError: A value is not accepted.
    """

    name: str
    dtype: str = "float32"
    channels: int = 1
    attributes: Mapping[str, Any] = FrozenDict()
    sampling: Sampling | None = None
    unit: Unit = SCALED_HU

    def __post_init__(self) -> None:
        """Checks the values that need no network, and makes `attributes` hashable."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, accepted: {sorted(DTYPES)}")
        if self.channels < 1 or self.channels % 2 == 0:
            raise ValueError(f"channels: got {self.channels}, accepted: an odd number")
        if (self.sampling is not None) != (self.name in FLOWS):
            raise ValueError(
                f"sampling: got {self.sampling} with {self.name}; only the flows "
                f"{sorted(FLOWS)} need it"
            )
        if self.unit.equal_channels and self.name not in FLOWS:
            raise ValueError(
                f"unit: got {self.unit.name} with {self.name}, accepted: "
                f"{SCALED_HU.name}; only the flows {sorted(FLOWS)} have another"
            )
        hashable = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.attributes.items()
        }
        object.__setattr__(self, "attributes", FrozenDict(hashable))

    def check(self) -> None:
        """Checks that the network can be created and that an own network is valid.

        Raises:
          ValueError: No network has that name, or the network lacks an attribute.
          UserError: An own network cannot be imported, or breaks a rule.
        """
        # For one device: statistics of several devices need an axis around them.
        network = self._network()
        if self.name not in MODELS:
            check_own_network(network, self.name)

    def create_network(self) -> nn.Module:
        """Returns the network; its batch statistics are taken over all devices.

        Raises:
          ValueError: No network has that name, or the network lacks an attribute.
          UserError: An own network cannot be imported.
        """
        has_axis = "axis_name" in attributes_of(self.name)
        return self._network(**({"axis_name": AXIS} if has_axis else {}))

    def _network(self, **more: Any) -> nn.Module:
        attributes = {**self.attributes, **more}
        dtype = DTYPES[self.dtype]
        return create_model(
            self.name, dtype=dtype, channels=self.channels, **attributes
        )

    def create(self, *, loss: str = "mse") -> Denoiser:
        """Returns the denoiser; its `init` creates its variables.

        Args:
          loss: the training loss, a name of `losses.LOSSES`. Flows ignore it: they
            have their own loss.

        Raises:
          ValueError, UserError: See `create_network`.
        """
        model = self.create_network()
        if self.sampling is None:
            return Regression(model=model, loss=create_loss(loss))
        return Flow(model=model, unit=self.unit, **dataclasses.asdict(self.sampling))

    def to_json(self) -> dict[str, Any]:
        """Returns the manifest's keys `model` and `unit`, and `flow` for a flow."""
        attributes = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self.attributes.items()
        }
        model = {"name": self.name, "dtype": self.dtype, "channels": self.channels}
        model = dict(sorted((model | attributes).items()))
        found: dict[str, Any] = {"model": model, **self.unit.to_json()}
        if self.sampling is not None:
            found["flow"] = dataclasses.asdict(self.sampling)
        return found

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> "DenoiserSpec":
        """Returns the denoiser that a manifest's `model`, `unit` and `flow` describe.

        Older exports: a flow without the key `flow` gets the default `Sampling`; width
        0 and remat False stand for the network's default values.

        Raises:
          KeyError, TypeError, ValueError: The manifest does not describe a denoiser.
        """
        attributes = {
            key: value
            for key, value in manifest["model"].items()
            if key not in ("width", "remat") or value
        }
        name = attributes.pop("name")
        sampling = Sampling(**manifest.get("flow", {})) if name in FLOWS else None
        return cls(
            name=name,
            dtype=attributes.pop("dtype", "float32"),
            channels=attributes.pop("channels", 1),
            attributes=attributes,
            sampling=sampling,
            unit=unit_from_json(manifest),
        )

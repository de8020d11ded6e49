"""All there is to know of a denoiser but its variables, as exports hold it."""

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
from ipv2.training.denoiser import Denoiser, Flow, Regression
from ipv2.training.flow import SAMPLERS
from ipv2.training.losses import create_loss

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a flow is followed from the noisy image to the clean one.

    The defaults are those of this project's recipes; FFM was published with 50 steps.

    Attributes:
      sampler: of `flow.SAMPLERS`.
      steps: of the sampler, at least 1.
      dropout_in_evaluation: drop activations when denoising too, see `Flow`.

    Raises:
      ValueError: a value that is not accepted.
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
    """A denoiser, but for the values of its variables.

    Equal for equal denoisers, and hashable.

    Attributes:
      name: of `models.MODELS`, or 'package.module:Class' of an own network.
      dtype: what the layers compute in: 'float32' or 'bfloat16'.
      channels: neighbouring slices in, odd; the one in the middle is denoised.
      attributes: of the network, beside these, where they are not its defaults; of a
        flow, `time_scale` is one of them. Lists become tuples.
      sampling: of a flow; None of a network that denoises in one call.

    Raises:
      ValueError: a value that is not accepted.
    """

    name: str
    dtype: str = "float32"
    channels: int = 1
    attributes: Mapping[str, Any] = FrozenDict()
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        """Checks what can be checked without the network, and makes it hashable."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, accepted: {sorted(DTYPES)}")
        if self.channels < 1 or self.channels % 2 == 0:
            raise ValueError(f"channels: got {self.channels}, accepted: an odd number")
        if (self.sampling is not None) != (self.name in FLOWS):
            raise ValueError(
                f"sampling: got {self.sampling} with {self.name}; the flows "
                f"{sorted(FLOWS)} have it, and they alone"
            )
        hashable = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.attributes.items()
        }
        object.__setattr__(self, "attributes", FrozenDict(hashable))

    def check(self) -> None:
        """Raises unless the network can be had, and an own one keeps the rules.

        Raises:
          ValueError: there is no network of that name, or it lacks an attribute.
          UserError: an own network cannot be had, or breaks a rule.
        """
        # Of one device: batch statistics of several need a step around them.
        network = self._network()
        if self.name not in MODELS:
            check_own_network(network, self.name)

    def create_network(self) -> nn.Module:
        """The network; its batch statistics are those of all devices.

        Raises:
          ValueError, UserError: as `check`, rules aside.
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
        """The denoiser, which makes its own variables (`init`) and applies them.

        Args:
          loss: of `losses.LOSSES`, that it would be trained with; a flow has its own.

        Raises:
          ValueError, UserError: as `create_network`.
        """
        model = self.create_network()
        if self.sampling is None:
            return Regression(model=model, loss=create_loss(loss))
        return Flow(model=model, **dataclasses.asdict(self.sampling))

    def to_json(self) -> dict[str, Any]:
        """Two keys of a manifest: `model`, sorted by name, and of a flow `flow`."""
        attributes = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self.attributes.items()
        }
        model = {"name": self.name, "dtype": self.dtype, "channels": self.channels}
        found: dict[str, Any] = {"model": dict(sorted((model | attributes).items()))}
        if self.sampling is not None:
            found["flow"] = dataclasses.asdict(self.sampling)
        return found

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> "DenoiserSpec":
        """The denoiser of a manifest, of which `model` and `flow` are read.

        Of older exports: a flow without `flow` has the default `Sampling`, and a width
        of 0 and no remat are the network's own values.

        Raises:
          KeyError, TypeError, ValueError: it holds something else.
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
        )

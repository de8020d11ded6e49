"""What a network learns from: the input and the target made of two breaths, in HU.

| kind        | input                       | target | counts                      |
|-------------|-----------------------------|--------|-----------------------------|
| `none`      | lq                          | gt     | every pixel                 |
| `purified`  | lq_bar of IPv1 or IPv2      | gt     | every pixel                 |
| `simulated` | N(gt)                       | gt     | every pixel                 |
| `gated`     | lq where the breaths agree, | gt     | every pixel                 |
|             | N(gt) elsewhere             |        |                             |
| `weighted`  | lq                          | gt     | pixels where breaths agree  |

N is the physical noise model. Its images are clipped as scanners store them, 12 bits
from -1024 HU, so that the network meets the offset that clipping gives to air.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float32

from ipv2.kernels.drawn_scans import ScanRanges, simulate_drawn_scans
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.purification.gating import agreement, gate
from ipv2.purification.purify import PurifyParams, purify

KINDS = ("none", "purified", "simulated", "gated", "weighted")
# Kinds that compare lq with N(gt), which only says something at the dose of lq.
_AT_ONE_DOSE = ("gated", "weighted")
_STORED_HU = (-1024, 3071)
_DOSE = DoseParams(dose=0.02)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairParams:
    """How training pairs are made. Hashable.

    Attributes:
      kind: of `KINDS`.
      purification: of `purified`; else None.
      dose: the scan that N simulates; with `gated` and `weighted`, that of lq.
      ranges: of the scans that `simulated` draws; None for that of `dose` alone.

    Raises:
      ValueError: an unknown kind, or options that do not go together.
    """

    kind: str
    purification: PurifyParams | None = None
    dose: DoseParams = _DOSE
    ranges: ScanRanges | None = None

    def __post_init__(self) -> None:
        """Checks what goes together."""
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}")
        if (self.purification is not None) != (self.kind == "purified"):
            raise ValueError(f"purification: given for 'purified' alone, not {self}")
        if self.ranges is not None and self.kind != "simulated":
            raise ValueError(f"ranges: drawn by 'simulated' alone, not {self.kind!r}")
        if self.kind in _AT_ONE_DOSE and not self.dose.dose < self.dose.input_dose:
            raise ValueError(
                f"kind {self.kind!r} needs a dose below the input's, got "
                f"{self.dose.dose} of {self.dose.input_dose}"
            )

    @property
    def needs_spacing(self) -> bool:
        """Whether the size of a pixel decides the pairs."""
        if self.purification is None:
            return self.kind != "none"
        return self.purification.needs_spacing


class Pair(NamedTuple):
    """Aligned slices.

    Attributes:
      x: input, HU.
      y: target, HU.
      weight: how much each pixel counts, 0 ... 1; None where all count alike.
    """

    x: Float32[Array, "b h w"]
    y: Float32[Array, "b h w"]
    weight: Float32[Array, "b h w"] | None


def training_pair(
    rngs: Array,
    lq: Float32[Array, "b h w"],
    gt: Float32[Array, "b h w"],
    spacing_mm: Any,
    params: PairParams,
) -> Pair:
    """Makes the pair of every slice; traceable.

    Args:
      rngs: a key per slice.
      lq: low-dose slices, HU.
      gt: normal-dose slices of the other breath, HU.
      spacing_mm: size of a pixel, `b 2`; read where noise is simulated.
      params: which pair.
    """
    if params.kind == "none":
        return Pair(lq, gt, None)
    if params.purification is not None:
        pure = purify(rngs, lq, gt, spacing_mm, params.purification)
        return Pair(pure.lq_bar, gt, None)
    if params.ranges is not None:
        scans = simulate_drawn_scans(rngs, gt, spacing_mm, params.dose, params.ranges)
        return Pair(_stored(scans.low), _stored(scans.normal), None)
    noisy_gt = _stored(simulate_low_dose(rngs, gt, spacing_mm, params.dose))
    if params.kind == "simulated":
        return Pair(noisy_gt, gt, None)
    ratio = params.dose.dose / params.dose.input_dose
    agrees = agreement(lq, gt, noisy_gt, ratio)
    if params.kind == "gated":
        return Pair(gate(lq, noisy_gt, agrees), gt, None)
    return Pair(lq, gt, agrees.astype(jnp.float32))


def _stored(hu: Float32[Array, "b h w"]) -> Float32[Array, "b h w"]:
    """Clips an image as a scanner stores it."""
    return jnp.clip(hu, *_STORED_HU)

"""How well a nodule can be told from none: d' of a channelised Hotelling observer.

The observer knows the place and the kind, and sees an image through a few channels v_j
= sum over pixels of u_j g, Laguerre-Gauss functions around the place:

    u_j(r) = sqrt(2) / a exp(-pi r^2 / a^2) L_j(2 pi r^2 / a^2),   j = 0, 1, ...
    d'^2   = s^T K^-1 s,    s = mean(v | nodule) - mean(v | none),   K = covariance of v

(Barrett, Yao, Rolland, Myers, PNAS 90, 1993; Gallas and Barrett, JOSA A 20(9), 2003.)
With five channels as wide as the nodule, a disc in white noise keeps 98.5 % of its
d'. The observer has no internal noise and no eye filter: it is better than a
radiologist, and alike for all images.

Sampled means and covariances make d'^2 too large. With m nodules, n empty places, p
channels and v = m + n - 2, the sampled D^2 follows Hotelling's T^2:

    E[D^2] = v / (v - p - 1) (d'^2 + p (1 / m + 1 / n))

`detectability` returns the unbiased d'^2, and the exact interval of a noncentral F
(Wunderlich, Noo, Gallas, Heilbrun, IEEE TMI 34(2), 2015). Both hold for Gaussian
channels of independent places. Channels add up many pixels, so noise is Gaussian;
anatomy may not be. Places of one patient share its anatomy and its noise level.

With the background subtracted (`cut_patches` of image - background) noise and what the
denoiser did limit d'; without, anatomy does too. Numbers of the two cannot be compared.

Beyond a d' of about 5 hardly anything is missed, so a difference there says little. A
nodule of lung replaces what was there: its contrast differs from place to place, which
bounds d' at high dose, however little noise there is. A linear filter gains nothing:
its d' is that of its input, less what the channels no longer see.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import optimize, special

from ipv2.kernels.photon_noise import slice_spacing
from ipv2.measures.nodules import EMPTY, Nodule

CHANNELS = 5
# Widths of the channels over the nodule's diameter.
_WIDTH = 1.0


class Detectability(NamedTuple):
    """d' with its interval.

    Attributes:
      value: root of the unbiased d'^2, 0 where that is negative; None for too few
        places: present + absent - 2 must exceed the channels by 2.
      low: lower end of the 95 % interval.
      high: upper end.
      present: places with a nodule.
      absent: empty places.
    """

    value: float | None
    low: float | None
    high: float | None
    present: int
    absent: int


def channel_widths_mm(nodules: Sequence[Nodule]) -> tuple[float, ...]:
    """Returns the widths a of the channels, one for each diameter, rising."""
    return tuple(sorted({_WIDTH * nodule.diameter_mm for nodule in nodules}))


def laguerre_gauss(
    distance_mm: Float[np.ndarray, "*b"] | Float[Array, "*b"],
    width_mm: float,
    channels: int = CHANNELS,
) -> Float[Array, "channels *b"]:
    """Returns the channels at distances from the place, 1/mm.

    Over a plane they are orthonormal: their products integrate to 0 or 1.

    Args:
      distance_mm: 0 or more.
      width_mm: a, above 0.
      channels: 1 or more.
    """
    if channels < 1 or not width_mm > 0:
        raise ValueError(f"got {channels} channels, {width_mm} mm: at least 1, above 0")
    square = 2 * math.pi * jnp.square(jnp.asarray(distance_mm) / width_mm)
    polynomials = [jnp.ones_like(square), 1 - square]
    for j in range(1, channels - 1):
        last, before = polynomials[-1], polynomials[-2]
        polynomials.append(((2 * j + 1 - square) * last - j * before) / (j + 1))
    envelope = math.sqrt(2) / width_mm * jnp.exp(-square / 2)
    return jnp.stack([one * envelope for one in polynomials[:channels]])


def channel_outputs(
    patches_hu: Float[Array, "*b n p p"],
    spacing_mm: Any,
    widths_mm: Sequence[float],
    channels: int = CHANNELS,
) -> Float[Array, "*b n w c"]:
    """Returns what the channels of every width see of every patch, HU mm.

    Args:
      patches_hu: from `nodule_insertion.cut_patches`; of image - background for an
        observer that knows the background.
      spacing_mm: size of the square pixels: a number, one per slice, or (row, column)s.
      widths_mm: see `channel_widths_mm`.
      channels: c.
    """
    *batch, _, side, _ = patches_hu.shape
    spacing = slice_spacing(spacing_mm, tuple(batch)).reshape(*batch, 1, 1)
    axis = np.arange(side, dtype=np.float32) - side // 2
    distance = jnp.asarray(np.hypot(axis[:, None], axis[None]))
    distance = jnp.broadcast_to(distance, (*batch, side, side)) * spacing
    # An integral over the plane is a sum over pixels times their area.
    templates = jnp.stack(
        [laguerre_gauss(distance, width, channels) for width in widths_mm]
    )
    templates = templates * jnp.expand_dims(jnp.square(spacing), (0, 1))
    return jnp.einsum("wc...xy,...nxy->...nwc", templates, patches_hu)


def detectability(
    present: Float[np.ndarray, "m c"],
    absent: Float[np.ndarray, "n c"],
    *,
    confidence: float = 0.95,
) -> Detectability:
    """Returns d' of the Hotelling observer of these channel outputs.

    Args:
      present: channel outputs of places with a nodule.
      absent: those of empty places.
      confidence: of the interval, in (0, 1).

    Raises:
      ValueError: The classes have other channels, numbers are not finite, or channels
        depend on each other, so that their covariance has no inverse.
    """
    present, absent = (np.asarray(a, np.float64) for a in (present, absent))
    if present.ndim != 2 or present.shape[1:] != absent.shape[1:]:
        raise ValueError(
            f"channel outputs: got shapes {present.shape} and {absent.shape}, "
            "accepted: (places, channels) of the same channels"
        )
    if not (np.all(np.isfinite(present)) and np.all(np.isfinite(absent))):
        raise ValueError("channel outputs are not finite")
    (m, p), n = present.shape, len(absent)
    freedom = m + n - 2
    if min(m, n) < 2 or freedom < p + 2:
        return Detectability(None, None, None, m, n)
    signal = present.mean(0) - absent.mean(0)
    scatter = sum((a - a.mean(0)).T @ (a - a.mean(0)) for a in (present, absent))
    covariance = np.asarray(scatter) / freedom
    if np.linalg.matrix_rank(covariance) < p:
        raise ValueError(
            f"the {p} channels of {m + n} places depend on each other; use fewer"
        )
    sampled = float(signal @ np.linalg.solve(covariance, signal))
    spread = 1 / m + 1 / n
    unbiased = (freedom - p - 1) / freedom * sampled - p * spread
    statistic = sampled / spread * (freedom - p + 1) / (freedom * p)
    low, high = (
        math.sqrt(_noncentrality(statistic, p, freedom - p + 1, tail) * spread)
        for tail in ((1 + confidence) / 2, (1 - confidence) / 2)
    )
    return Detectability(math.sqrt(max(unbiased, 0.0)), low, high, m, n)


def detectability_by_kind(
    outputs: Float[np.ndarray, "s n w c"],
    kind: Int[np.ndarray, "s n"],
    found: Bool[np.ndarray, "s n"],
    nodules: Sequence[Nodule],
) -> dict[str, Detectability]:
    """Returns {kind in words: its d' against all empty places}.

    Args:
      outputs: `channel_outputs` of s slices, with `channel_widths_mm(nodules)`.
      kind: of every place, from `DrawnNodules`.
      found: of every place.
      nodules: the kinds.
    """
    outputs, kind, found = (np.asarray(a) for a in (outputs, kind, found))
    widths = channel_widths_mm(nodules)
    empty = found & (kind == EMPTY)
    result = {}
    for index, nodule in enumerate(nodules):
        width = widths.index(_WIDTH * nodule.diameter_mm)
        there = found & (kind == index)
        result[str(nodule)] = detectability(
            outputs[there][:, width], outputs[empty][:, width]
        )
    return result


def _noncentrality(statistic: float, p: int, freedom: int, probability: float) -> float:
    """Returns the noncentrality whose F' is below the statistic with a probability."""

    def excess(noncentrality: float) -> float:
        below = special.ncfdtr(p, freedom, noncentrality, statistic)
        return float(below) - probability

    if excess(0.0) <= 0:
        return 0.0
    high = max(1.0, 2 * p * statistic)
    while excess(high) > 0:
        high *= 2
    root = optimize.brentq(excess, 0.0, high, xtol=1e-9, rtol=1e-9, full_output=False)
    return float(np.asarray(root))

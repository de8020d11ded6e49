"""Where two breaths agree: real noise is kept there, and simulated elsewhere.

Ours, not published. IPv2 leaves everything outside the lung misaligned, so a network
that is trained on it learns to blur and to darken what moved. The gated pair keeps the
scanner's own noise where anatomy agrees, and simulates it where anatomy moved:

    lq_bar = A lq + (1 - A) N(gt), target gt

A pixel agrees if at every scale s the low-passed difference of the two breaths is no
larger than noise explains:

    |G_s * (lq - gt)|  <=  3 sd,   sd^2 = c (G_8s * (G_s * (N(gt) - gt))^2)
    c = (1 + a) / (1 - a)

G_s is a Gaussian of s pixels and a the dose as a fraction of gt's. N(gt) - gt holds the
variance that the lower dose adds, (1 / a - 1) v, with v that of gt's own noise; between
two scans lies 1 / a of lq and 1 of gt, (1 / a + 1) v: c is their ratio. Its mean square
holds the bias of few photons too. Three standard deviations are passed by chance by
0.3 % of independent values; such pixels get simulated noise, which harms nothing.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from ipv2.kernels import bit_mask, morphology
from ipv2.kernels.smoothing import gaussian, wide_gaussian

# Pixels. The fine scale finds edges that moved, the coarse one a change of the lung's
# density, which between two breaths is some tens of HU.
SCALES_PX = (2.0, 8.0)
_DEVIATIONS = 3.0
# A scale's noise is averaged over so many times its width.
_AROUND = 8.0
# HU^2: images are stored in whole HU, whose rounding has a variance of 1/12 each.
_ROUNDING_HU2 = 1 / 6


def agreement(
    lq: Float32[Array, "*b h w"],
    gt: Float32[Array, "*b h w"],
    noisy_gt: Float32[Array, "*b h w"],
    dose_ratio: float | int,
) -> Bool[Array, "*b h w"]:
    """Returns A: the pixels where noise alone explains that the breaths differ.

    Args:
      lq: low-dose slices, HU.
      gt: normal-dose slices of the other breath, HU.
      noisy_gt: N(gt), at the dose of lq, HU.
      dose_ratio: dose of lq as a fraction of that of gt, in (0, 1).

    Raises:
      ValueError: the ratio is outside its range: nothing is known of the noise.
    """
    if not 0 < dose_ratio < 1:
        raise ValueError(f"dose_ratio = {dose_ratio}; above 0 and below 1.")
    between = (1 + dose_ratio) / (1 - dose_ratio)
    height = lq.shape[-2]
    moved = jnp.zeros_like(bit_mask.pack(lq > 0))
    for scale in SCALES_PX:
        difference = _low_pass(lq - gt, scale)
        noise = _low_pass(noisy_gt - gt, scale)
        variance = between * wide_gaussian(jnp.square(noise), _AROUND * scale)
        limit = _DEVIATIONS * jnp.sqrt(jnp.maximum(variance, 0.0) + _ROUNDING_HU2)
        # What is found is the middle of an edge; its flanks lie a width to each side.
        found = bit_mask.pack(jnp.abs(difference) > limit)
        moved |= morphology.dilate_disc(found, height, math.ceil(scale))
    return ~bit_mask.unpack(moved, height)


def gate(
    lq: Float32[Array, "*b h w"],
    noisy_gt: Float32[Array, "*b h w"],
    agrees: Bool[Array, "*b h w"],
) -> Float32[Array, "*b h w"]:
    """Returns lq_bar = A lq + (1 - A) N(gt)."""
    return jnp.where(agrees, lq, noisy_gt)


def _low_pass(image: Array, sigma_px: float) -> jax.Array:
    """The same filter by whichever way is faster."""
    smooth = gaussian if sigma_px <= 2 else wide_gaussian
    return smooth(image, sigma_px)

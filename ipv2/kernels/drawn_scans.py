"""Low-dose scans drawn at random, one for each slice: training for many scanners.

Dose, photons, tube current and the cut-off of the reconstruction filter are drawn
log-uniformly from ranges; everything else is as in `photon_noise`. A network that is
trained on one dose and one kernel fails on others.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, Real

from ipv2.kernels import photon_noise
from ipv2.kernels.photon_counts import slice_keys
from ipv2.kernels.photon_noise import DoseParams
from ipv2.kernels.reconstruction_filter import filter_response

Range = tuple[float, float]
# Neighbouring filters of a range from 0.5 to 4 then differ by 7 % in their cut-off.
_CUTOFFS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanRanges:
    """What the scan of an example is drawn from, (low, high), log-uniformly.

    Attributes:
      dose: as a fraction of normal dose; None for that of the `DoseParams`.
      photons: of one ray through air at normal dose; None likewise.
      cutoff: of the reconstruction filter; None likewise.
      current: tube current of the slice over the series' mean, which multiplies the
        photons; None for 1.
      target_dose: the images are free of noise, and the normal-dose images that belong
        to the low-dose ones are scans too, at this fraction of normal dose, which no
        drawn dose exceeds; None for images that are normal-dose scans themselves.

    Raises:
      ValueError: a range that does not rise, or does not start above 0.
    """

    dose: Range | None = None
    photons: Range | None = None
    cutoff: Range | None = None
    current: Range | None = None
    target_dose: float | None = None

    def __post_init__(self) -> None:
        """Checks every range."""
        current = {} if self.current is None else {"current": self.current}
        for name, value in (self._known | current).items():
            low, high = value
            if not (0 < low <= high and math.isfinite(high)):
                raise ValueError(
                    f"{name} = {value}; (low, high) with 0 < low <= high, both finite."
                )

    def extremes(self, params: DoseParams) -> tuple[DoseParams, DoseParams]:
        """Returns the scans at the lower and at the upper ends.

        Raises:
          ValueError: an end is outside what `DoseParams` accepts, or a drawn dose can
            exceed that of the target.
        """

        def at(end: int) -> DoseParams:
            ends: dict[str, Any] = {k: v[end] for k, v in self._known.items()}
            return dataclasses.replace(params, **ends)

        low, high = at(0), at(1)
        target = self.target_dose
        if target is not None and not high.dose <= target <= 1:
            raise ValueError(
                f"target_dose = {target}; a fraction of normal dose, at least the "
                f"largest dose that is drawn, {high.dose}, and at most 1."
            )
        return low, high

    @property
    def _known(self) -> dict[str, Range]:
        """Returns the given ranges of fields of `DoseParams`."""
        names = ("dose", "photons", "cutoff")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}


def drawn_responses(params: DoseParams, ranges: ScanRanges, padded: int) -> np.ndarray:
    """(n, padded // 2 + 1) filters at cut-offs evenly spaced in log over the range."""
    low, high = ranges.cutoff or (params.cutoff, params.cutoff)
    count = _CUTOFFS if low < high else 1
    return np.stack(
        [
            filter_response(
                params.filter_name, padded, cutoff=cutoff, window=params.window
            )
            # Rounding must not carry the last one over the largest cut-off.
            for cutoff in np.minimum(np.geomspace(low, high, count), high)
        ]
    )


def draw_scans(
    keys: Array, params: DoseParams, ranges: ScanRanges, *, filters: int
) -> tuple[dict[str, Float32[Array, " b"]], Int32[Array, " b"]]:
    """Draws a scan for each key.

    Args:
      keys: `b` keys.
      params: what is not drawn.
      ranges: of what is.
      filters: how many `drawn_responses` gave.

    Returns:
      The scans as `photon_noise` takes them, and which filter each one has.
    """
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
    # Of another key, so that the three others are the same with and without it.
    fourth = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 3)))(keys)

    def log_uniform(share: Array, given: Range | None, fixed: float) -> Array:
        low, high = given or (fixed, fixed)
        between = jnp.exp(jnp.log(low) + share * (jnp.log(high) - jnp.log(low)))
        return jnp.clip(between, low, high)  # rounding of the logarithm

    dose = log_uniform(uniform[:, 0], ranges.dose, params.dose)
    photons = log_uniform(uniform[:, 1], ranges.photons, params.photons)
    current = log_uniform(fourth, ranges.current, 1.0)
    scans = {
        key: jnp.broadcast_to(jnp.asarray(value, jnp.float32), dose.shape)
        for key, value in photon_noise.scan_values(params).items()
    }
    scans["photons"] = photons * dose * current
    scans["dose"] = dose
    scans["ratio"] = dose / params.input_dose
    chosen = jnp.minimum((uniform[:, 2] * filters).astype(jnp.int32), filters - 1)
    return scans, chosen


class Scans(NamedTuple):
    """One image at two doses, HU."""

    low: Float32[Array, "*b h w"]
    normal: Float32[Array, "*b h w"]


def simulate_drawn_scans(
    rng: Array,
    image_hu: Real[Array | np.ndarray, "..."],
    spacing_mm: Any,
    params: DoseParams,
    ranges: ScanRanges,
) -> Scans:
    """Returns low-dose and normal-dose images, each of a scan drawn at random, HU.

    As `photon_noise.simulate_low_dose` but for the drawing: a slice's scan and noise
    depend on its key, image and spacing alone.

    Args:
      rng: one key, folded with each slice's position in the batch; or keys of shape *b.
      image_hu: `*b h w` normal-dose images, or with `ranges.target_dose` images free of
        noise; at least 16 pixels each way.
      spacing_mm: as for `simulate_low_dose`.
      params: what is not drawn; a parallel beam.
      ranges: of what is.

    Returns:
      `*b h w`, not clipped. Without `ranges.target_dose`, `normal` is the image.

    Raises:
      ValueError: as `simulate_low_dose`; ranges outside what `DoseParams` accepts; a
        fan beam.
    """
    ranges.extremes(params)
    if params.source_distance_mm is not None:
        raise ValueError(
            f"source_distance_mm = {params.source_distance_mm}; scans are drawn with "
            "parallel beams: None."
        )
    photon_noise.check_image(image_hu)
    h, w = image_hu.shape[-2:]
    batch = image_hu.shape[:-2]
    spacing = photon_noise.slice_spacing(spacing_mm, batch)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(slice_keys(rng, batch))
    geometry = photon_noise.scan_geometry((h, w), params.views)
    responses = drawn_responses(params, ranges, geometry.padded)
    scans, chosen = draw_scans(keys[:, 0], params, ranges, filters=len(responses))
    image = jnp.asarray(image_hu, jnp.float32)
    flat = jax.lax.stop_gradient(image).reshape(-1, h, w)

    def noise(keys: Array, scans: dict[str, Array]) -> Array:
        added = photon_noise.noise_of_scans_hu(
            geometry, jnp.asarray(responses), scans, chosen, keys, flat, spacing
        )
        return jax.lax.stop_gradient(added).reshape(image.shape)

    normal = image
    if ranges.target_dose is not None:
        of_target = jnp.full_like(scans["ratio"], ranges.target_dose)
        fresh = {
            "ratio": jnp.zeros_like(of_target),
            "photons": scans["photons"] * of_target / scans["dose"],
        }
        normal = image + noise(keys[:, 2], {**scans, **fresh})
        scans = scans | {"ratio": scans["dose"] / of_target}
    return Scans(normal + noise(keys[:, 1], scans), normal)

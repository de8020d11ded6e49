"""Warns where a scan is noisier, or quieter, than what a network was trained on."""

import math

import jax
import numpy as np
from absl import logging

from ipv2.measures.noise_level import soft_tissue_noise_hu

TRAINED_NOISE = "trained_noise_hu"
"""Key of a manifest: [low, high], HU, of 90 % of the training's inputs."""
# Of a volume: more would not change the median, and take 50 ms each.
_SLICES = 16
SMALLEST = 21
"""Pixels along each axis that a slice needs to be measured."""

_noise_hu = jax.jit(soft_tissue_noise_hu)


class NoiseCheck:
    """Measures slices of a volume as they pass.

    Attributes:
      found_hu: noise of the slices measured so far; NaN for those without soft tissue.
    """

    def __init__(self, manifest: dict, slices: int) -> None:
        """Measures nothing without a range in the manifest.

        Args:
          manifest: of the network.
          slices: of the volume.
        """
        self._trained = manifest.get(TRAINED_NOISE)
        self._step = max(1, math.ceil(slices / _SLICES))
        self._index = 0
        self.found_hu: list[float] = []

    def add(self, hu: np.ndarray) -> None:
        """Measures the next slice, if its turn comes."""
        due = self._index % self._step == 0 and min(hu.shape) >= SMALLEST
        self._index += 1
        if self._trained is not None and due:
            self.found_hu.append(float(_noise_hu(np.asarray(hu, np.float32))))

    def warn(self, name: str) -> None:
        """Logs a warning if the volume lies outside of the training's range."""
        found = [noise for noise in self.found_hu if math.isfinite(noise)]
        if self._trained is None or not found:
            return
        low, high = self._trained
        noise = float(np.median(found))
        if not low <= noise <= high:
            logging.warning(
                "%s: noise of %.0f HU in soft tissue; the network was trained on %.0f "
                "to %.0f HU. It was not tested on such a scan: compare the result with "
                "the input before you use it.",
                *(name, noise, low, high),
            )

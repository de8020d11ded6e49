"""ASTRA's CPU projectors, parallel beam. Needs the `astra-toolbox` package."""

import astra
import numpy as np


class AstraScan:
    """One geometry: `project` and `reconstruct` (FBP, Hann) for single slices.

    ASTRA turns about the corner between the central pixels, ours and scikit-image's
    about the central pixel: compare times, not values.
    """

    def __init__(self, size, angle_rad, projector="linear"):
        """projector: linear, line or strip."""
        self.volume = astra.create_vol_geom(size, size)
        self.rays = astra.create_proj_geom("parallel", 1.0, size, np.asarray(angle_rad))
        self.projector = astra.create_projector(projector, self.rays, self.volume)

    def project(self, image):
        """(h, w) float32 to (n, d)."""
        number, sinogram = astra.create_sino(image, self.projector)
        astra.data2d.delete(number)
        return sinogram

    def reconstruct(self, sinogram):
        """(n, d) float32 to (h, w)."""
        source = astra.data2d.create("-sino", self.rays, sinogram)
        target = astra.data2d.create("-vol", self.volume)
        settings = astra.astra_dict("FBP")
        settings["ProjectorId"] = self.projector
        settings["ProjectionDataId"] = source
        settings["ReconstructionDataId"] = target
        settings["option"] = {"FilterType": "hann"}
        algorithm = astra.algorithm.create(settings)
        astra.algorithm.run(algorithm)
        image = astra.data2d.get(target)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([source, target])
        return image

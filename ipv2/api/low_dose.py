"""Simulates a scan or an array at a lower dose."""

from typing import Any

import numpy as np

from ipv2.api.arguments import (
    Image,
    SpacingMm,
    after,
    fields_of,
    require_spacing,
    require_whole,
    take_image,
)
from ipv2.ct_io import at_dose
from ipv2.kernels.photon_noise import DoseParams
from ipv2.volumes.checks import check_axial, check_square
from ipv2.volumes.low_dose import (
    derivation_description,
    series_description,
    simulated_slices,
)
from ipv2.volumes.scan import with_result


def simulate_low_dose(
    image: Image,
    *,
    dose: float,
    seed: int = 0,
    spacing_mm: SpacingMm = None,
    name: str | None = None,
    batch_size: int = 8,
    **scanner: Any,
) -> Image:
    """Returns the scan at a lower dose, with added photon and electronic noise.

    The noise model is in `ipv2.kernels.photon_noise`. A scan read from DICOM has the
    tube current of each slice, and the slice's photons follow it. Padding stays as it
    is, and HU are clipped to the range that scanners store. The result is that of
    `--task simulate`, before a file rounds to whole HU.

    Args:
      image: a scan, or an array of HU, at least 16 x 16 pixels.
      dose: dose of the result, as a fraction of normal dose, in (0, 1].
      seed: seed of the noise.
      spacing_mm: size of the square pixels of an array, mm.
      name: a name for the noise, which follows from seed, name and slice number alone.
        The default is the scan's name, or 'array' for an array. The task takes the path
        below the input folder without the extension: 'p1/scan'.
      batch_size: slices at once; changes memory, and last bits.
      **scanner: other fields of `DoseParams`: input_dose, photons,
        electronic_variance, views, filter_name, cutoff, window, source_distance_mm,
        bowtie_mm.

    Returns:
      HU, with the type and shape of `image`.

    Raises:
      ValueError: a value is not accepted, or the image does not hold HU.
      TypeError: `image` is neither a scan nor an array, or an option is unknown.
    """
    scan, back = take_image(image, spacing_mm=spacing_mm)
    params = fields_of(DoseParams, "simulate_low_dose", scanner, dose=dose)
    require_whole("seed", seed, 0)
    require_whole("batch_size", batch_size, 1)
    check_axial(scan, scan.shape)
    require_spacing(scan)
    check_square(scan)
    slices = simulated_slices(
        scan.source(),
        params,
        name=scan.name if name is None else name,
        seed=seed,
        batch_size=batch_size,
    )
    stored = np.stack([hu for _, hu in slices])
    fraction = params.dose / params.input_dose
    described = derivation_description(params, seed, scan.shape, scan.relative_current)
    return back(
        with_result(
            scan,
            stored,
            headers=tuple(at_dose(header, fraction) for header in scan.headers),
            series_description=series_description(scan, params),
            derivation_description=after(scan, described),
        )
    )

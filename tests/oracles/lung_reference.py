"""The lungs of a clean chest CT volume, slowly, with scikit-image and 3-D components.

Independent of `ipv2.purification.anatomy`: full resolution, Euclidean discs,
components in 3-D. Looked at on the sample CT, slice by slice; airways are those of
that scan.
"""

import numpy as np
from skimage import measure, morphology

_AIR_HU, _GAS_HU = -500, -930
_AIRWAY_PIXELS, _LUNG_VOXELS = 1500, 20_000


def lung_reference(hu: np.ndarray) -> np.ndarray:
    """Bool (z, h, w) of clean HU (z, h, w) at about 0.8 mm."""
    air = (hu < _AIR_HU) & _filled_body(hu > _AIR_HU)
    for z in range(len(hu)):
        labels = measure.label(air[z], connectivity=1)
        for region in measure.regionprops(labels, intensity_image=hu[z]):
            inside = morphology.erosion(labels == region.label, np.ones((3, 3)))
            gas = inside.sum() > 8 and hu[z][inside].mean() < _GAS_HU
            if gas and region.area < _AIRWAY_PIXELS and region.solidity > 0.75:
                air[z][labels == region.label] = False
    disc = morphology.disk(1)
    air = np.stack([morphology.opening(slice_, disc) for slice_ in air])
    labels = measure.label(air, connectivity=1)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes > _LUNG_VOXELS)[labels]


def _filled_body(tissue: np.ndarray) -> np.ndarray:
    opened = np.stack([morphology.opening(t, morphology.disk(3)) for t in tissue])
    labels = measure.label(opened, connectivity=1)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == sizes.argmax()
    rim = morphology.disk(2)
    filled = []
    for one, all_tissue in zip(body, tissue, strict=True):
        whole = morphology.dilation(one, rim) & all_tissue
        outside = measure.label(np.pad(~whole, 1, constant_values=True), connectivity=1)
        filled.append((outside != outside[0, 0])[1:-1, 1:-1])
    return np.stack(filled)

"""An analytic thorax in two breaths, drawn from a seed, with known truth.

The chest is made of ellipses. Real bodies vary more: the phantom is for tests, quick
starts and measurements that need a known truth.

    breath, other = create_breaths(seed)
    patient = create_patient(seed)
    slices = render(patient, breath, slice_positions(patient, 8), size=256)
"""

from ipv2.phantom.patient import (
    Breath,
    Patient,
    create_breaths,
    create_patient,
    slice_positions,
)
from ipv2.phantom.rendering import PhantomSlices, render

__all__ = [
    "Breath",
    "Patient",
    "PhantomSlices",
    "create_breaths",
    "create_patient",
    "render",
    "slice_positions",
]

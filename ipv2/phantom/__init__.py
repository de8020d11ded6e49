"""An analytic thorax: two breaths of a patient drawn from a seed, every truth known.

A chest made of ellipses, in two breaths. Real bodies differ in more ways: this is for
tests, quick starts and known truth.

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

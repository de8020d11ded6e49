"""Sets the dose attributes of a DICOM CT slice at a simulated dose.

Tube current, exposure and CTDIvol are those of the simulated scan, so images sorted by
dose are also sorted by noise. A simulated scan must not pass for a real one:
SyntheticData is YES, and IrradiationEventUID is dropped, because dose registries count
irradiations by it. The patient's real dose stays in the source image, to which the
derived image refers.
"""

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement

from ipv2.ct_io.dicom_header import numbers_of

_WHOLE = ("XRayTubeCurrent", "Exposure", "ExposureInuAs", "XRayTubeCurrentInuA")
_FRACTIONAL = ("XRayTubeCurrentInmA", "ExposureInmAs", "CTDIvol")


def at_dose(header: Dataset, fraction: float) -> Dataset:
    """Returns the header of a slice scanned with a fraction of its exposure.

    Scales, if present: XRayTubeCurrent (mA, uA), Exposure (mAs, uAs), their
    floating-point forms and CTDIvol. mA and mAs are whole numbers in DICOM, at least 1
    here, so ExposureInuAs is added to keep the digits. Values that are no numbers stay.

    Args:
      header: header of one slice; it is not changed.
      fraction: share of the slice's exposure, above 0.
    """
    result = Dataset()
    result.update(header)
    if "IrradiationEventUID" in result:
        del result["IrradiationEventUID"]
    exposure = numbers_of(header, "Exposure")
    if exposure and "ExposureInuAs" not in header:
        _set(result, "ExposureInuAs", f"{1000 * exposure[0]:.0f}")
    for keyword in _WHOLE:
        values = numbers_of(result, keyword)
        if values and values[0]:
            _set(result, keyword, str(max(1, round(values[0] * fraction))))
    for keyword in _FRACTIONAL:
        values = numbers_of(result, keyword)
        if values and values[0]:
            _set(result, keyword, values[0] * fraction)
    _set(result, "SyntheticData", "YES")
    return result


def _set(header: Dataset, keyword: str, value: str | float) -> None:
    element = DataElement(
        keyword, dictionary_VR(keyword), value, already_converted=True
    )
    header[element.tag] = element

"""The dose attributes of a DICOM CT slice whose dose is simulated.

A simulated scan should read as one: tube current, exposure and CTDIvol are those of
the scan that is simulated, so that images sorted by them fall where their noise does.
It should never pass for one: SyntheticData is YES, and IrradiationEventUID goes, since
no irradiation belongs to these values (dose registries count by it). What the patient
got stays in the source image, which the derived one names.
"""

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement

from ipv2.ct_io.dicom_header import numbers_of

_WHOLE = ("XRayTubeCurrent", "Exposure", "ExposureInuAs", "XRayTubeCurrentInuA")
_FRACTIONAL = ("XRayTubeCurrentInmA", "ExposureInmAs", "CTDIvol")


def at_dose(header: Dataset, fraction: float) -> Dataset:
    """The header of a slice as scanned with a fraction of its exposure.

    Scaled, where present: XRayTubeCurrent (mA, uA), Exposure (mAs, uAs), their
    floating-point forms and CTDIvol. mA and mAs are whole numbers in DICOM, at least 1
    here; ExposureInuAs is added, which has the digits. What is not a number stays.

    Args:
      header: of one slice; left as it is.
      fraction: of the slice's own exposure, above 0.
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

"""The dose attributes of a DICOM CT slice whose dose is simulated.

A simulated scan should read as one: tube current, exposure and CTDIvol are those of
the scan that is simulated, so that images sorted by them fall where their noise does.
It should never pass for one: SyntheticData is YES, and IrradiationEventUID goes, since
no irradiation belongs to these values (dose registries count by it). What the patient
got stays in the source image, which the derived one names.
"""

from collections.abc import Mapping

_WHOLE = ("0018|1151", "0018|1152", "0018|1153", "0018|8151")
_FRACTIONAL = ("0018|9330", "0018|9332", "0018|9345")
_EXPOSURE_MAS, _EXPOSURE_UAS = "0018|1152", "0018|1153"
_IRRADIATION_EVENT, _SYNTHETIC_DATA = "0008|3010", "0008|001c"


def at_dose(tags: Mapping[str, str], fraction: float) -> dict[str, str]:
    """The tags of a slice as scanned with a fraction of its exposure.

    Scaled, where present: XRayTubeCurrent (mA, uA), Exposure (mAs, uAs), their
    floating-point forms and CTDIvol. mA and mAs are whole numbers in DICOM, at least 1
    here; ExposureInuAs is added, which has the digits. What is not a number stays.

    Args:
      tags: of one slice, by 'gggg|eeee'.
      fraction: of the slice's own exposure, above 0.
    """
    result = {key: tags[key] for key in tags if key != _IRRADIATION_EVENT}
    exposure = _number(tags, _EXPOSURE_MAS)
    if exposure is not None and _EXPOSURE_UAS not in tags:
        result[_EXPOSURE_UAS] = f"{1000 * exposure:.0f}"
    for key in _WHOLE:
        if value := _number(result, key):
            result[key] = str(max(1, round(value * fraction)))
    for key in _FRACTIONAL:
        if value := _number(result, key):
            result[key] = f"{value * fraction:.6g}"
    return result | {_SYNTHETIC_DATA: "YES"}


def _number(tags: Mapping[str, str], key: str) -> float | None:
    try:
        return float(tags.get(key, "").strip(" \0"))
    except ValueError:
        return None

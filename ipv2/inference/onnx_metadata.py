"""What an ONNX file of a denoiser says of itself, as its metadata holds it.

All values are text. `tile`, `least_side` and `stride` are pixels:

format            "ipv2 denoiser 1"
unit              "HU", of input and output
network           name, such as "unet"
slices            neighbouring slices of the input; the middle one is denoised
stride            heights and widths are multiples of it
radius            a result depends on so many pixels around it; "whole image"
sizes             "free": any height and width from `least_side` on; or "fixed": both
                  are `least_side`
least_side        see `sizes`
tile              side of the tiles that images are cut into; 0: whole images
variables_sha256  of the export's variables
version, commit   of the software that wrote the file
trained_doses     (low, high) of the inputs in training, of the normal dose, if known
manifest          of the export, JSON, without its list of files
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

FORMAT = "ipv2 denoiser 1"
UNIT = "HU"

_WHOLE_IMAGE = "whole image"
_FREE, _FIXED = "free", "fixed"


class OnnxMetadata(NamedTuple):
    """The metadata of a denoiser's ONNX file, see above.

    Attributes:
      network: name.
      slices: of the input.
      stride: of heights and widths, pixels.
      radius: pixels; None: a result depends on the whole image.
      fixed: whether height and width are `least_side`.
      least_side: smallest height and width, pixels.
      tile: side of the tiles that images are cut into, pixels; 0: whole images.
      variables_sha256: of the export's variables.
      version: of the software that wrote the file.
      commit: of that software; "" if it is unknown.
      manifest: of the export.
    """

    network: str
    slices: int
    stride: int
    radius: int | None
    fixed: bool
    least_side: int
    tile: int
    variables_sha256: str
    version: str
    commit: str
    manifest: dict[str, Any]

    def to_text(self) -> dict[str, str]:
        """Returns the metadata of a file."""
        found = {
            "format": FORMAT,
            "unit": UNIT,
            "network": self.network,
            "slices": str(self.slices),
            "stride": str(self.stride),
            "radius": _WHOLE_IMAGE if self.radius is None else str(self.radius),
            "sizes": _FIXED if self.fixed else _FREE,
            "least_side": str(self.least_side),
            "tile": str(self.tile),
            "variables_sha256": self.variables_sha256,
            "version": self.version,
            "commit": self.commit,
            "manifest": json.dumps(self.manifest),
        }
        doses = _trained_doses(self.manifest)
        return found if doses is None else {**found, "trained_doses": str(doses)}

    @classmethod
    def from_text(cls, found: Mapping[str, str]) -> "OnnxMetadata":
        """Returns the metadata that a file holds.

        Raises:
          KeyError, ValueError: a key is missing, or a value is not accepted.
        """
        for key, accepted in (
            ("format", (FORMAT,)),
            ("unit", (UNIT,)),
            ("sizes", (_FREE, _FIXED)),
        ):
            if found[key] not in accepted:
                raise ValueError(
                    f"{key}: got {found[key]!r}, accepted: {' or '.join(accepted)}"
                )
        radius = found["radius"]
        return cls(
            network=found["network"],
            slices=int(found["slices"]),
            stride=int(found["stride"]),
            radius=None if radius == _WHOLE_IMAGE else int(radius),
            fixed=found["sizes"] == _FIXED,
            least_side=int(found["least_side"]),
            tile=int(found["tile"]),
            variables_sha256=found["variables_sha256"],
            version=found["version"],
            commit=found["commit"],
            manifest=json.loads(found["manifest"]),
        )


def _trained_doses(manifest: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns the lowest and highest dose of simulated inputs; None for other pairs."""
    trained = manifest.get("trained_with", {})
    if trained.get("purify", {}).get("version") != "simulated":
        return None
    noise = trained.get("noise", {})
    low, high = noise.get("dose_range", (0, 0))
    if high:
        return float(low), float(high)
    return (float(noise["dose"]),) * 2 if "dose" in noise else None

"""A denoiser as one ONNX file, with its description."""

from pathlib import Path
from typing import Any

from common.checkpoint import hash_variables
from common.image_network import Quantized
from common.onnx.package import onnx_model, require_onnx, write_model
from common.version import COMMIT, VERSION
from ipv2.deploy.network_graph import DenoiserGraph, denoiser_graph
from ipv2.inference.onnx_metadata import OnnxMetadata
from ipv2.inference.tiling import DEFAULT_TILE
from ipv2.inference.trained import Trained

NAME = "model.onnx"
"""Name of the file beside a run's export."""


def save_onnx(
    trained: Trained, path: Path, quantized: Quantized | None = None
) -> OnnxMetadata:
    """Writes a denoiser as an ONNX file, complete or not at all.

    Args:
      trained: the network.
      path: of the file, which is replaced if it exists.
      quantized: the same network with integers in its convolutions; None for floats.

    Returns:
      What the file says of itself.

    Raises:
      UserError: onnx is not installed, the network is a flow, or it has an operation
        that cannot be exported.
    """
    require_onnx()
    found = denoiser_graph(trained, quantized)
    metadata = _metadata(trained, found, quantized)
    sides = (found.least,) * 2 if found.fixed else ("height", "width")
    model = onnx_model(
        found.graph,
        ("batch", trained.slices, *sides),
        ("batch", 1, *sides),
        name="denoiser",
        producer="ipv2",
        description=f"{trained.describe()}: HU to HU, channels first",
        metadata=metadata.to_text(),
    )
    write_model(model, path)
    return metadata


def _metadata(
    trained: Trained, found: DenoiserGraph, quantized: Quantized | None
) -> OnnxMetadata:
    manifest: dict[str, Any] = {
        key: value for key, value in trained.manifest.items() if key != "files"
    }
    sha256 = trained.sha256
    if quantized is not None:
        manifest["quantized"] = dict(quantized.description)
        sha256 = hash_variables(quantized.variables)
    tile = DEFAULT_TILE if trained.radius is None else 0
    return OnnxMetadata(
        network=trained.name,
        slices=trained.slices,
        stride=trained.stride,
        radius=trained.radius,
        fixed=found.fixed,
        least_side=found.least,
        tile=found.least if found.fixed else tile,
        variables_sha256=sha256,
        version=VERSION,
        commit=COMMIT or "",
        manifest=manifest,
    )

"""A denoiser's ONNX file: what it says of itself, and how it is applied."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from common.errors import UserError
from common.version import stated
from ipv2.inference.apply import BatchApplier
from ipv2.inference.onnx_metadata import FORMAT, OnnxMetadata
from ipv2.inference.onnx_runtimes import (
    ONNXRUNTIME,
    OPENVINO,
    RUNTIMES,
    Runtime,
    onnxruntime_of,
    open_session,
    openvino_of,
)
from ipv2.inference.tiling import Tiling, create_tiling
from ipv2.inference.trained import (
    describe_model,
    describe_quantization,
    describe_training,
)

_MAKE = (
    "Write one with --task export and the --workdir of a training run, or in Python "
    "with ipv2.load_denoiser(FOLDER).save_onnx(FILE)."
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OnnxDenoiser:
    """A denoiser's ONNX file, ready for use.

    Attributes:
      path: of the file.
      sha256: of the file.
      metadata: what the file says of itself.
      runtime: what computes it.
    """

    path: Path
    sha256: str
    metadata: OnnxMetadata
    runtime: Runtime

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the export."""
        return self.metadata.manifest

    @property
    def name(self) -> str:
        """Name of the network, such as 'redcnn'."""
        return self.metadata.network

    @property
    def slices(self) -> int:
        """How many neighbouring slices it takes."""
        return self.metadata.slices

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the results, as JSON."""
        return {
            "model": self.manifest["model"],
            "runtime": self.runtime.name,
            "sha256": self.sha256,
        }

    def describe(self) -> str:
        """Describes the network in words, for people and DICOM headers."""
        by = stated(self.metadata.version, self.metadata.commit or None)
        parts = [
            describe_model(self.manifest["model"]),
            *describe_training(self.manifest),
            *describe_quantization(self.manifest),
            f"ONNX file of SHA-256 {self.sha256}",
            f"variables of SHA-256 {self.metadata.variables_sha256}",
            f"written by version {by}",
            f"in {self.runtime.name} {self.runtime.version}",
        ]
        return ", ".join(parts)

    def tiling(self, *, tile: int, overlap: int, section: str = "") -> Tiling:
        """Returns how images are cut for it, see `create_tiling`.

        Raises:
          UserError: as `create_tiling`, or the file takes other tiles only.
        """
        fixed = self.metadata.least_side if self.metadata.fixed else None
        if fixed is not None and tile not in (-1, fixed):
            raise UserError(
                f"{section}tile: got {tile}, accepted: {fixed} or -1, since "
                f"{self.path} takes images of that size only"
            )
        return create_tiling(
            tile=tile if fixed is None else fixed,
            overlap=overlap,
            radius=self.metadata.radius,
            stride=self.metadata.stride,
            section=section,
        )

    def applier(self, *, batch_size: int, tiling: Tiling) -> "OnnxApplier":
        """Returns what applies it to the slices of volumes."""
        return OnnxApplier(self, batch_size=batch_size, tiling=tiling)


class OnnxApplier(BatchApplier):
    """Applies an ONNX file on the cores of this machine."""

    def __init__(
        self, denoiser: OnnxDenoiser, *, batch_size: int, tiling: Tiling
    ) -> None:
        """Describes batches, see `BatchApplier`."""
        super().__init__(
            channels=denoiser.slices, batch_size=batch_size, devices=1, tiling=tiling
        )
        self._denoiser = denoiser

    def start(self, tiles: list[Float[np.ndarray, "h w c"]], size: int) -> np.ndarray:
        """Returns a batch of denoised tiles.

        Edge pixels pad tiles to multiples of the network's stride, as the networks
        themselves do.

        Raises:
          UserError: the file takes larger images only.
        """
        del size
        found = self._denoiser.metadata
        height, width = tiles[0].shape[:2]
        if min(height, width) < found.least_side:
            raise UserError(
                f"an image of {height} x {width} pixels: {self._denoiser.path} takes "
                f"at least {found.least_side} x {found.least_side}. Denoise it with "
                "the network's export instead: config.denoise.model=FOLDER"
            )
        below, right = -height % found.stride, -width % found.stride
        padding = ((0, 0), (0, below), (0, right), (0, 0))
        stacks = np.pad(np.stack(tiles), padding, mode="edge").transpose(0, 3, 1, 2)
        result = self._denoiser.runtime.run(stacks.astype(np.float32))
        return result[:, 0, :height, :width]


def load_onnx(path: Path, runtime: str = ONNXRUNTIME) -> OnnxDenoiser:
    """Reads a denoiser's ONNX file, which onnxruntime checks.

    Args:
      path: of the file.
      runtime: what computes it, of `RUNTIMES`.

    Raises:
      ValueError: no such runtime.
      UserError: onnxruntime or the runtime is missing, the file is damaged, or it is
        not that of a denoiser of this software.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime: got {runtime!r}, accepted: {', '.join(RUNTIMES)}")
    content = path.read_bytes()
    session = open_session(path, content)
    try:
        found = session.get_modelmeta().custom_metadata_map
        metadata = OnnxMetadata.from_text(found)
    except KeyError as error:
        raise UserError(
            f"{path}: not an ONNX file of {FORMAT!r}: its metadata lacks {error}, so "
            f"the unit and sizes of its images are unknown. {_MAKE}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path}: not an ONNX file of {FORMAT!r} in HU: its metadata has {error}. "
            f"{_MAKE}"
        ) from error
    _check_shapes(path, session, metadata)
    return OnnxDenoiser(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        metadata=metadata,
        runtime=openvino_of(path, content)
        if runtime == OPENVINO
        else onnxruntime_of(session),
    )


def _check_shapes(path: Path, session: Any, metadata: OnnxMetadata) -> None:
    """Raises UserError unless input and output are images as the metadata says."""
    for name, channels, found in (
        ("input", metadata.slices, session.get_inputs()),
        ("output", 1, session.get_outputs()),
    ):
        shapes = [(value.type, value.shape) for value in found]
        is_image = len(found) == 1 and shapes[0][0] == "tensor(float)"
        shape = shapes[0][1] if is_image else []
        if len(shape) != 4 or shape[1] != channels:
            raise UserError(
                f"{path}: got {name} of {shapes}, accepted: one of float32, (n, "
                f"{channels}, h, w), as its metadata says. {_MAKE}"
            )

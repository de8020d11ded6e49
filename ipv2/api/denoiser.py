"""An exported network, which denoises scans or arrays."""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np

from common.devices import replicate
from common.typing import PyTree
from ipv2.api.arguments import Image, after, require_whole, take_image
from ipv2.deploy.onnx_file import save_onnx
from ipv2.inference.apply import Applier
from ipv2.inference.shipped import shipped_export
from ipv2.inference.tiling import create_tiling
from ipv2.inference.trained import Trained, find_export, load_trained
from ipv2.training.denoiser import make_denoise
from ipv2.training.denoiser_spec import DenoiserSpec, Sampling
from ipv2.volumes.checks import check_axial, check_neighbours
from ipv2.volumes.denoised import (
    denoised_slices,
    derivation_description,
    series_description,
)
from ipv2.volumes.scan import with_result


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrainedDenoiser:
    """A network that was trained and exported; see `load_denoiser`.

    Attributes:
      trained: the network, its variables and its manifest.
    """

    trained: Trained

    def __repr__(self) -> str:
        """The network in words."""
        return f"TrainedDenoiser({self.trained.describe()})"

    @property
    def spec(self) -> DenoiserSpec:
        """The network without its variables."""
        return self.trained.spec

    def with_sampling(
        self, *, sampler: str = "euler", steps: int = 8
    ) -> "TrainedDenoiser":
        """Returns the flow with another sampler or other steps than its export's.

        Args:
          sampler: 'euler', 'heun' or 'midpoint'.
          steps: steps of the sampler, at least 1.

        Raises:
          ValueError: the network is no flow, or a value is not accepted.
        """
        exported = self.spec.sampling
        if exported is None:
            raise ValueError(f"{self.spec.name} is no flow: it takes no steps")
        dropout = exported.dropout_in_evaluation
        sampling = Sampling(sampler=sampler, steps=steps, dropout_in_evaluation=dropout)
        return TrainedDenoiser(trained=self.trained.sampled(sampling))

    def denoise(
        self,
        image: Image,
        *,
        tile: int = -1,
        overlap: int = -1,
        batch_size: int = 1,
    ) -> Image:
        """Returns the image with less noise.

        Padding stays as it is, and HU are clipped to the range that the input's slice
        is stored in. A network in windowed grey, such as the published FFM, changes no
        pixel outside of its window. The result is that of `--task denoise`, before a
        file rounds to whole HU.

        Args:
          image: a scan, or an array of HU, at least 16 x 16 pixels. A network that sees
            neighbouring slices takes them from the image; the first and the last slice
            repeat beyond its ends.
          tile: pixels of the tiles that slices are cut into; 0: whole slices; -1:
            whole slices, or 256 where a result depends on all of a slice.
          overlap: overlap of tiles in pixels; -1: what the network needs.
          batch_size: slices or tiles at once.

        Returns:
          HU, with the type and shape of `image`.

        Raises:
          ValueError: a value is not accepted, or the image does not hold HU.
          TypeError: `image` is neither a scan nor an array.
        """
        trained, model = self.trained, self.trained.denoiser.model
        scan, back = take_image(image)
        for key, value, at_least in (
            ("tile", tile, -1),
            ("overlap", overlap, -1),
            ("batch_size", batch_size, 1),
        ):
            require_whole(key, value, at_least)
        check_axial(scan, scan.shape)
        check_neighbours(scan, trained.denoiser.slices)
        applier = Applier(
            make_denoise(trained.denoiser),
            self._variables,
            channels=trained.denoiser.slices,
            batch_size=batch_size,
            tiling=create_tiling(
                tile=tile, overlap=overlap, radius=trained.radius, stride=model.stride
            ),
        )
        slices = denoised_slices(scan.source(), applier, trained)
        stored = np.stack([hu for _, hu in slices])
        described = derivation_description(trained, applier.tiling)
        return back(
            with_result(
                scan,
                stored,
                series_description=series_description(scan, trained),
                derivation_description=after(scan, described),
            )
        )

    def save_onnx(self, path: str | os.PathLike[str]) -> None:
        """Writes the network as an ONNX file, from HU to HU.

        `--task denoise --config.denoise.model=FILE` takes the file, see
        `docs/export.md`.

        Args:
          path: of the file, which is replaced if it exists.

        Raises:
          UserError: onnx is not installed, the network is a flow, or it has an
            operation that cannot be exported.
        """
        save_onnx(self.trained, Path(path))

    @functools.cached_property
    def _variables(self) -> PyTree:
        """The variables on the devices, placed there once for all calls."""
        return replicate(self.trained.variables)


def load_denoiser(export: str | os.PathLike[str] | None = None) -> TrainedDenoiser:
    """Returns an exported network; needs no recipe.

    A flow has the sampler of its export. Older exports do not state one; their flows
    have that of this project's recipes, and a line in the log says so.

    Args:
      export: the folder `export` of a run or of task export, or the folder of the run;
        None: the network that comes with this software, see weights/README.md.

    Raises:
      UserError: there is no export, it is damaged, or its network cannot be imported.
    """
    folder = shipped_export() if export is None else find_export(export)
    return TrainedDenoiser(trained=load_trained(folder))

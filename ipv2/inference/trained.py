"""An exported network, ready for use, with its description."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from common.checkpoint import MANIFEST, load_manifest, load_variables
from common.errors import UserError
from common.typing import PyTree
from common.version import VERSION, stated
from ipv2.inference.apply import Applier
from ipv2.inference.tiling import Tiling, create_tiling
from ipv2.models import hash_code, units
from ipv2.training.denoiser import Denoiser, Flow, make_denoise
from ipv2.training.denoiser_spec import DenoiserSpec, Sampling


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """An exported network.

    Attributes:
      spec: description of the network without its variables.
      denoiser: the denoiser made from `spec`.
      variables: variables of the network.
      manifest: manifest of the export.
      code_sha256: hash of the code of a user's own network, see `models.hash_code`.
    """

    spec: DenoiserSpec
    denoiser: Denoiser
    variables: PyTree
    manifest: dict[str, Any]
    code_sha256: str | None = None

    @property
    def name(self) -> str:
        """Name of the network, such as 'redcnn'."""
        return self.spec.name

    @property
    def sha256(self) -> str:
        """SHA-256 of the variables."""
        return self.manifest["sha256"]

    @property
    def radius(self) -> int | None:
        """A result depends on so many pixels around it; None: on the whole image."""
        # Each step of a flow adds the network's radius, up to the whole image.
        if isinstance(self.denoiser, Flow):
            return None
        return self.denoiser.model.radius

    @property
    def stride(self) -> int:
        """Tile origins must be multiples of this."""
        return self.denoiser.model.stride

    @property
    def slices(self) -> int:
        """How many neighbouring slices it takes."""
        return self.denoiser.slices

    def tiling(self, *, tile: int, overlap: int, section: str = "") -> Tiling:
        """Returns how images are cut for it, see `create_tiling`."""
        return create_tiling(
            tile=tile,
            overlap=overlap,
            radius=self.radius,
            stride=self.stride,
            section=section,
        )

    def applier(self, *, batch_size: int, tiling: Tiling) -> Applier:
        """Returns what applies it to the slices of volumes."""
        return Applier(
            make_denoise(self.denoiser),
            self.variables,
            channels=self.slices,
            batch_size=batch_size,
            tiling=tiling,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the results, as JSON."""
        identity = {"model": self.manifest["model"], "sha256": self.sha256}
        if (sampling := self.spec.sampling) is not None:
            flow: dict[str, Any] = {
                "sampler": sampling.sampler,
                "steps": sampling.steps,
            }
            # Only if it is on: finished results without this key stay valid.
            if sampling.dropout_in_evaluation:
                flow["dropout_in_evaluation"] = True
            identity["flow"] = flow
        if self.spec.unit != units.SCALED_HU:
            identity |= self.spec.unit.to_json()
        if self.code_sha256 is not None:
            identity["code_sha256"] = self.code_sha256
        return identity

    def sampled(self, sampling: Sampling) -> "Trained":
        """Returns the same network; a flow is then integrated with `sampling`."""
        if self.spec.sampling in (None, sampling):
            return self
        spec = dataclasses.replace(self.spec, sampling=sampling)
        return dataclasses.replace(self, spec=spec, denoiser=spec.create())

    def describe(self) -> str:
        """Describes the network in words, for people and DICOM headers."""
        parts = [describe_model(self.manifest["model"])]
        if (sampling := self.spec.sampling) is not None:
            parts.append(f"{sampling.sampler} in {sampling.steps} steps")
        if self.spec.unit != units.SCALED_HU:
            parts.append(self.spec.unit.describe())
        if "weights" in self.manifest:
            parts.append(f"weights of {self.manifest['weights']['file']}")
        parts += describe_training(self.manifest)
        by = stated(self.manifest["software_version"], self.manifest.get("commit"))
        parts += [f"SHA-256 {self.sha256}", f"exported by version {by}"]
        return ", ".join(parts)


def describe_model(model: Mapping[str, Any]) -> str:
    """Describes the `model` of a manifest in words."""
    attributes = ", ".join(
        f"{key} {value}" for key, value in model.items() if key != "name" and value
    )
    return f"network {model['name']} ({attributes})"


def describe_training(manifest: Mapping[str, Any]) -> list[str]:
    """Describes the training of a manifest's network in words, as far as known."""
    parts = []
    if "step" in manifest:
        first = manifest.get("started_from")
        of = "" if first is None else f" from the network {first['sha256'][:8]}"
        parts.append(f"trained for {manifest['step']} steps{of}")
    purify = manifest.get("trained_with", {}).get("purify", {})
    if "version" in purify:
        parts.append(f"on pairs of purification {purify['version']}")
    return parts


def describe_quantization(manifest: Mapping[str, Any]) -> list[str]:
    """Describes the integers of a manifest's network in words; none for floats."""
    found = manifest.get("quantized")
    if found is None:
        return []
    return [
        f"weights of {found['weight_bits']} and activations of "
        f"{found['activation_bits']} bits",
        f"ranges from {found['ranges_in_words']}",
    ]


def find_export(folder: str | os.PathLike[str]) -> Path:
    """Returns the export's folder, given it or the folder of its run."""
    path = Path(folder)
    if not (path / MANIFEST).exists() and (path / "export" / MANIFEST).exists():
        return path / "export"
    return path


def load_trained(export: str | os.PathLike[str]) -> Trained:
    """Reads the network of an export.

    A flow whose manifest is older than the key `flow` is integrated as in this
    project's recipes; the log says so.

    Args:
      export: folder of the export.

    Raises:
      UserError: There is no export, it is damaged, or this software has no such
        network.
    """
    export = Path(export)
    manifest = load_manifest(export)
    path = export / MANIFEST
    model = manifest.get("model")
    if not isinstance(model, dict) or manifest.get("unit") not in units.NAMES:
        raise UserError(
            f"{path}: not the export of a denoiser in {' or '.join(units.NAMES)}: it "
            f"has unit {manifest.get('unit')!r} and model {model!r}. Give the export "
            "of a training run of ipv2, or of its task export."
        )
    try:
        spec = DenoiserSpec.from_json(manifest)
        spec.check()
        denoiser = spec.create()
        like = jax.eval_shape(lambda: denoiser.init(jax.random.key(0)))
    except UserError as error:  # an own network that cannot be imported
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: version {VERSION} of this software has no such network: {model} "
            f"({error}). The export is of version {manifest.get('software_version')}: "
            "use that version, or copy the export again if it was changed."
        ) from error
    if spec.sampling is not None and "flow" not in manifest:
        logging.info(
            "%s: this older export states no sampler; using %s in %d steps",
            *(path, spec.sampling.sampler, spec.sampling.steps),
        )
    if isinstance(spec.unit, units.WindowedGrey):
        logging.info(
            "%s: this network computes in %s. HU outside of that window stay as in the "
            "input",
            *(path, spec.unit.describe()),
        )
    code = hash_code(spec.name)
    if code != manifest.get("code_sha256", code):
        logging.warning(
            "%s: the file of %s has changed since the export: what the network "
            "computes may differ",
            *(path, spec.name),
        )
    return Trained(
        spec=spec,
        denoiser=denoiser,
        variables=load_variables(export, like),
        manifest=manifest,
        code_sha256=code,
    )

"""An exported network, ready to be applied, and what it says of itself."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from common.checkpoint import MANIFEST, load_manifest, load_variables
from common.config import ConfigDict
from common.errors import UserError
from common.typing import PyTree
from common.version import VERSION, stated
from ipv2.tasks import settings
from ipv2.training.denoiser import Denoiser, Flow

UNIT = "HU/1000"
"""What networks see, as manifests state it."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """An exported network.

    Attributes:
      denoiser: how it is applied.
      variables: of the network.
      manifest: of the export.
    """

    denoiser: Denoiser
    variables: PyTree
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the network: 'redcnn', say."""
        return self.manifest["model"]["name"]

    @property
    def sha256(self) -> str:
        """Of the variables."""
        return self.manifest["sha256"]

    @property
    def radius(self) -> int | None:
        """Pixels that a result depends on beyond its own; None: the whole image."""
        # Every step of a flow looks further by the network's radius: all of the image.
        if isinstance(self.denoiser, Flow):
            return None
        return self.denoiser.model.radius

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its results, as JSON."""
        decides = {"model": self.manifest["model"], "sha256": self.sha256}
        if isinstance(self.denoiser, Flow):
            flow = self.denoiser
            decides["flow"] = {"sampler": flow.sampler, "steps": flow.steps}
        return decides

    def describe(self) -> str:
        """The network in words, for people and DICOM headers."""
        model = ", ".join(
            f"{key} {value}"
            for key, value in self.manifest["model"].items()
            if key != "name" and value
        )
        parts = [f"network {self.name} ({model})"]
        if isinstance(self.denoiser, Flow):
            parts.append(f"{self.denoiser.sampler} in {self.denoiser.steps} steps")
        if "step" in self.manifest:
            parts.append(f"trained for {self.manifest['step']} steps")
        purify = self.manifest.get("trained_with", {}).get("purify", {})
        if "version" in purify:
            parts.append(f"on pairs of purification {purify['version']}")
        by = stated(self.manifest["software_version"], self.manifest.get("commit"))
        parts += [f"SHA-256 {self.sha256}", f"exported by version {by}"]
        return ", ".join(parts)


def load_trained(config: ConfigDict, export: Path) -> Trained:
    """The network in an export, whatever network the config has.

    Args:
      config: a checked IPv2 config; of flow models, `flow` says how they are applied.
      export: its folder.

    Raises:
      UserError: there is none, it is damaged, or not a network of this software.
    """
    manifest = load_manifest(export)
    path = export / MANIFEST
    model = manifest.get("model")
    if not isinstance(model, dict) or manifest.get("unit") != UNIT:
        raise UserError(
            f"{path}: not of a denoiser in {UNIT}: it has unit "
            f"{manifest.get('unit')!r} and model {model!r}. Give the --workdir of a "
            "training run of ipv2."
        )
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model = ConfigDict(model)
    try:
        denoiser = settings.denoiser(config)
        like = jax.eval_shape(lambda: denoiser.init(jax.random.key(0)))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: version {VERSION} of this software has no such network: {model} "
            f"({error}). Exported by version {manifest.get('software_version')}: use "
            "that, or copy the export again if it was changed."
        ) from error
    return Trained(
        denoiser=denoiser, variables=load_variables(export, like), manifest=manifest
    )

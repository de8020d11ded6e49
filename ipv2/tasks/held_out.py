"""What an export says of the embedded slices that its training did not see."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.config import ConfigDict
from common.errors import UserError
from ipv2.datasets.embedded import EMBEDDED, UNET_SPLITS, EmbeddedSplits
from ipv2.tasks import settings

_KEY = "embedded_splits"


def record_splits(config: ConfigDict, datasets: Sequence[str]) -> dict[str, Any]:
    """Returns the manifest's keys of a training's splits.

    Args:
      config: of the training.
      datasets: that it saw. Without an embedded one there is nothing to say.
    """
    if not set(datasets) & set(EMBEDDED):
        return {}
    return {_KEY: settings.embedded_splits(config).to_json()}


def trained_splits(manifest: Mapping[str, Any], export: str) -> EmbeddedSplits:
    """Returns the splits of the training that made an export.

    A training without embedded data saw none of their slices: any splits will do. An
    older export does not state its splits, see `doubt`.

    Args:
      manifest: of the export.
      export: names it in messages.

    Raises:
      UserError: the manifest was changed.
    """
    if _KEY not in manifest:
        return UNET_SPLITS
    try:
        return EmbeddedSplits.from_json(manifest[_KEY])
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{export}: its manifest has other {_KEY} than this software writes "
            f"({error}). Copy the export again if it was changed."
        ) from error


def doubt(manifest: Mapping[str, Any], export: str) -> str:
    """Returns why `trained_splits` may not be those of the training; '' if they are."""
    seen = set(manifest.get("datasets", EMBEDDED)) & set(EMBEDDED)
    if _KEY in manifest or not seen:
        return ""
    return (
        f"{export}: this export does not say which slices of sample CT and phantom its "
        "training saw. Those that configs/ipv2_unet.py holds out judge it, as they do "
        "the network that ships. If it saw some of them, numbers are too good."
    )

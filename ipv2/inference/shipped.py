"""Where the trained denoiser lies that comes with this software."""

from pathlib import Path

from common.checkpoint import MANIFEST
from common.errors import UserError

# In a checkout beside the packages; pip installs it into ipv2.
_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE.parent / "weights", _PACKAGE / "weights")
_NAME = "unet"


def shipped_export() -> Path:
    """Returns the export of the denoiser that ships, see `weights/README.md`.

    Raises:
      UserError: the installation lacks it.
    """
    for folder in _FOLDERS:
        if (folder / _NAME / MANIFEST).exists():
            return folder / _NAME
    raise UserError(
        f"the denoiser that ships is neither in {_FOLDERS[0]} nor in {_FOLDERS[1]}. "
        "Install this software again, or name a network of yours: "
        "config.denoise.model=FOLDER, in Python ipv2.load_denoiser(FOLDER)."
    )

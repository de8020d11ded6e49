"""Where the trained denoiser lies that comes with this software."""

import sysconfig
from pathlib import Path

from common.checkpoint import MANIFEST
from common.errors import UserError

_NAME = "unet"


def shipped_export() -> Path:
    """Returns the export of the denoiser that ships, see `weights/README.md`.

    It lies in the checkout, or where pip puts the data of packages.

    Raises:
      UserError: the installation lacks it.
    """
    checkout = Path(__file__).parents[2] / "weights"
    installed = Path(sysconfig.get_path("data")) / "share" / "ipv2" / "weights"
    for folder in (checkout, installed):
        if (folder / _NAME / MANIFEST).exists():
            return folder / _NAME
    raise UserError(
        f"the denoiser that ships is neither in {checkout} nor in {installed}. Install "
        "the package again, or name a network of yours: config.denoise.model, in "
        "Python load_denoiser(FOLDER)."
    )

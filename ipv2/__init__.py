# ruff: noqa: F403, F405 (the names are imported where they are listed: in ipv2.api)
"""Image purification and denoising of real ultra-low-dose lung CT (IPv2).

The names in `__all__` are for notebooks and scripts, see `docs/python.md`. A name is
imported when it is first used, so that a kernel can be imported without the rest.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipv2.api import *

__all__ = [
    "DenoiserSpec",
    "DoseParams",
    "PurifiedPair",
    "Scan",
    "TrainedDenoiser",
    "UserError",
    "load_denoiser",
    "purify",
    "read_scan",
    "simulate_low_dose",
    "write_scan",
]


def __getattr__(name: str) -> Any:
    """Returns a public name from `ipv2.api` (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'ipv2' has no attribute {name!r}")
    from ipv2 import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """Returns the public names and those that are imported already."""
    return sorted({*globals(), *__all__})

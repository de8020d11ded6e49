"""Image purification and denoising of real ultra-low-dose lung CT (IPv2).

The names below are for notebooks and scripts, see `docs/python.md`. They are imported
when they are first used, so that a kernel can be had without the rest.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipv2.api import (
        DenoiserSpec,
        DoseParams,
        PurifiedPair,
        Scan,
        TrainedDenoiser,
        UserError,
        load_denoiser,
        purify,
        read_scan,
        simulate_low_dose,
        write_scan,
    )

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
    """A public name, from `ipv2.api` (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'ipv2' has no attribute {name!r}")
    from ipv2 import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """The public names, and what is imported already."""
    return sorted({*globals(), *__all__})

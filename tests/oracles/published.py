"""What the published scripts made of seven pairs (`tests/data/ip_reference`)."""

from pathlib import Path

import numpy as np

_FILE = Path(__file__).parents[1] / "data/ip_reference/ip_reference.npz"
NAMES = (
    "a1_12_lung",
    "a1_25_lung",
    "a1_25_soft",
    "a1_40_lung",
    "a1_52_soft",
    "phantom",
    "wider_than_circle",
)


def published(name: str) -> dict[str, np.ndarray]:
    """Inputs and outputs of one pair by kind; noise_mean and noise_sd in levels."""
    with np.load(_FILE) as stored:
        planes = dict(zip(stored["kinds"].tolist(), stored[name], strict=True))
        planes["noise_mean"] = stored[f"{name}/noise_mean"] / 8
    planes["noise_sd"] = planes["noise_sd"] / 8
    return planes

"""Names of networks and bits, as tables write them."""

from collections.abc import Mapping
from typing import Any

ROW_NAMES = {
    "noise": "rounded, ranges from noise",
    "bn_statistics": "rounded, ranges from BatchNorm",
    "generated": "rounded, ranges from samples",
    "untrained": "untrained, min-max ranges of samples",
    "real": "rounded, ranges from real images",
    "quantized": "quantized",
    "integer_ready": "quantized, all integers",
}
"""Of the baselines and the two modes. Of the baselines, `real` alone needs images."""


def bits_word(bits: Mapping[str, int]) -> str:
    """Returns "W4A4" of {weight: 4, activation: 4}."""
    return f"W{bits['weight']}A{bits['activation']}"


def own_bits(results: Mapping[str, Any]) -> str:
    """Returns the layers with other bits than the rest, as "conv1 W8, act1 A8"."""
    kinds = {"weights": "weight", "activations": "activation", "others": "other"}
    return ", ".join(
        f"{name} {'W' if group == 'weights' else 'A'}{bits}"
        for group, layers in results.get("layer_bits", {}).items()
        for name, bits in layers.items()
        if bits != results["bits"][kinds[group]]
    )

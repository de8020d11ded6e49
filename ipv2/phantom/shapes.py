"""Shapes as signed distances: negative inside, in the units of the coordinates."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def ellipse(x: Array, y: Array, a: Any, b: Any, power: float = 2.0) -> Array:
    """Approximate signed distance to |x/a|^power + |y/b|^power = 1."""
    u, v = jnp.abs(x) / a + 1e-6, jnp.abs(y) / b + 1e-6
    radius = (u**power + v**power) ** (1 / power)
    slope = jnp.hypot(u ** (power - 1) / a, v ** (power - 1) / b)
    return (radius - 1) * radius ** (power - 1) / slope


def ellipsoid(x: Array, y: Array, z: Array, a: Any, b: Any, c: Any) -> Array:
    """Approximate signed distance to (x/a)^2 + (y/b)^2 + (z/c)^2 = 1."""
    radius = jnp.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 + 1e-6)
    slope = jnp.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2 + 1e-9)
    return (radius - 1) * radius / slope


def segment(x: Array, y: Array, start: Any, end: Any) -> Array:
    """Distance to a line segment in the plane."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)
    along = jnp.clip(along, 0.0, 1.0)
    return jnp.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def join(*distances: Array, width: float = 8.0) -> Array:
    """Union with a fillet: smooth minimum (polynomial)."""
    result = distances[0]
    for other in distances[1:]:
        overlap = jnp.maximum(width - jnp.abs(result - other), 0.0) / width
        result = jnp.minimum(result, other) - overlap * overlap * width / 4
    return result


def cut(*distances: Array, width: float = 6.0) -> Array:
    """Intersection with rounded corners."""
    return -join(*(-distance for distance in distances), width=width)


def smooth(value: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    share = jnp.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3 - 2 * share)

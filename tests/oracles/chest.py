"""A cross-section of a chest with known regions."""

import numpy as np


def chest(size, spacing_mm):
    """(size, size) HU, and the inner part of each region as a mask.

    A body of 330 x 220 mm, soft tissue (40 HU), two lungs (-850), a vertebra (500), in
    air; edges as wide as a pixel. Regions end 8 mm inside their edges.
    """
    row, column = np.mgrid[:size, :size] - size // 2
    x, y = column * spacing_mm, row * spacing_mm

    def inside(cx, cy, rx, ry):
        """Distance to the edge of an ellipse, about, in mm; positive inside."""
        radius = np.hypot((x - cx) / rx, (y - cy) / ry)
        return (1 - radius) * min(rx, ry)

    body = inside(0, 0, 165, 110)
    lung = np.maximum(inside(-80, -5, 62, 80), inside(80, -5, 62, 80))
    bone = inside(0, 65, 20, 20)
    image = np.full((size, size), -1000.0)
    for depth, hu in ((body, 40), (lung, -850), (bone, 500)):
        share = np.clip(depth / spacing_mm + 0.5, 0, 1)
        image = image + share * (hu - image)
    circle = np.hypot(x, y) < (size // 2) * spacing_mm - 8
    regions = {
        "lung": lung > 8,
        "soft tissue": (body > 8) & (lung < -8) & (bone < -8),
        "bone": bone > 8,
        "air": (body < -8) & circle,
    }
    return image.astype(np.float32), regions

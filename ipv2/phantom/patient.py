"""Draws patients and their breaths from a seed, and maps a breath's motion.

Anatomy is a function of a point (x, y, z) in mm at the reference breath: x to the
image's right (the patient's left), y to the back, z to the head, with z = 0 at the
lowest tip of the lungs. A breath is a smooth map from a point in the scanner to its
place at the reference breath.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ipv2.phantom.shapes import ellipse, smooth

_WAVES = 12
_LUNG = -865.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """The parameters of a patient; lengths in mm. A pytree of arrays.

    Attributes:
      height: height of the lungs, lowest tip to apex.
      cage: (2,) half-axes of the inner chest, across and front to back.
      wall: (2,) thickness of muscle and ribs, at the sides and at the front.
      fat: thickness of the fat under the skin.
      heart: (6,) centre x, y, z and half-axes.
      dome: (2,) height of the diaphragm's domes, right and left.
      lung_hu: mean HU of lung tissue.
      phase: start of ribs and vertebrae along z.
      waves: (12, 4) wave vectors per mm and phases of the texture.
      vessels: (s, 7) segments: two ends and a radius.
    """

    height: Any
    cage: Any
    wall: Any
    fat: Any
    heart: Any
    dome: Any
    lung_hu: Any
    phase: Any
    waves: Any
    vessels: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Breath:
    """The deviation of a scan from the reference breath. A pytree of arrays.

    Attributes:
      depth: 0 is the reference, positive exhaled: 1 lifts the diaphragm by 18 mm,
        lowers the chest by 3.5 % and narrows it by 1.2 %.
      heart_scale: factor of the heart's size.
      waves: (6, 6) wave vector per mm, phase and displacement (x, y) in mm of the
        irregular motion in the lungs.
    """

    depth: Any
    heart_scale: Any
    waves: Any


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _vessel_tree(rng: np.random.Generator, height: float) -> np.ndarray:
    """Returns (s, 7) segments of trees from both hila; every branch forks six times."""
    side, polar, lean = (
        axis.ravel()
        for axis in np.meshgrid(
            [-1.0, 1.0], np.linspace(-1.25, 1.25, 6), [-0.7, -0.1, 0.55]
        )
    )
    count = side.size
    direction = np.stack([side * np.cos(polar), lean, np.sin(polar)], axis=1)
    direction = _unit(direction + rng.normal(0, 0.12, (count, 3)))
    start = np.stack([32 * side, 6 + 8 * lean, 0.5 * height + 14 * polar], axis=1)
    radius, length = rng.uniform(3.0, 4.6, count), rng.uniform(24, 32, count)
    levels = []
    for level in range(7):
        if level:
            start, direction, radius, length = (
                np.repeat(array, 2, axis=0)
                for array in (start, direction, radius, length)
            )
            count = radius.size
            pair = np.repeat(rng.normal(size=(count // 2, 3)), 2, axis=0)
            axis = _unit(np.cross(direction, pair))
            angle = rng.uniform(0.3, 0.75, count) * np.tile([-1.0, 1.0], count // 2)
            direction = (
                np.cos(angle)[:, None] * direction + np.sin(angle)[:, None] * axis
            )
            # Murray's law, r^3 = r1^3 + r2^3, with uneven children.
            radius = np.maximum(radius * rng.uniform(0.66, 0.86, count), 0.55)
            length = length * rng.uniform(0.68, 0.9, count)
        direction = _unit(direction + rng.normal(0, 0.16, (count, 3)))
        end = start + length[:, None] * direction
        levels.append(np.concatenate([start, end, radius[:, None]], axis=1))
        start = end
    return np.concatenate(levels)


def _random_waves(
    rng: np.random.Generator, shape: tuple[int, int], lengths_mm: tuple[float, float]
) -> np.ndarray:
    """Returns rows of wave vector per mm, phase, and normal numbers in the rest."""
    waves = rng.normal(size=shape)
    length = np.geomspace(*lengths_mm, shape[0])
    norm = np.linalg.norm(waves[:, :3], axis=1)
    waves[:, :3] *= (2 * math.pi / length / norm)[:, None]
    waves[:, 3] = rng.uniform(0, 2 * math.pi, shape[0])
    return waves


def create_patient(seed: int) -> Patient:
    """Returns a patient; a seed gives the same patient on every machine."""
    rng = np.random.default_rng([seed, 0])
    height = rng.uniform(205, 240)
    size = rng.uniform(0.93, 1.06)
    waves = _random_waves(rng, (_WAVES, 4), (5, 45))
    fields = {
        "height": height,
        "cage": size * np.array([rng.uniform(118, 130), rng.uniform(92, 104)]),
        "wall": np.array([rng.uniform(14, 19), rng.uniform(13, 18)]),
        "fat": rng.uniform(6, 20),
        "heart": np.concatenate(
            [
                [rng.uniform(20, 28), rng.uniform(-26, -18), rng.uniform(0.34, 0.4)],
                size * np.array([rng.uniform(54, 62), rng.uniform(43, 50), 52]),
            ]
        ),
        "dome": np.array([rng.uniform(62, 76), rng.uniform(50, 62)]),
        "lung_hu": _LUNG + rng.uniform(-20, 25),
        "phase": rng.uniform(0, 25),
        "waves": waves,
        "vessels": _vessel_tree(rng, height),
    }
    fields["heart"][2] *= height
    return Patient(
        **{key: np.asarray(value, np.float32) for key, value in fields.items()}
    )


def create_breaths(seed: int) -> tuple[Breath, Breath]:
    """Returns two breaths of a patient, deep and shallower or the reverse."""
    rng = np.random.default_rng([seed, 1])
    difference = rng.uniform(0.6, 1.0) * rng.choice([-1, 1])
    breaths = []
    for depth in (0.5 - difference / 2, 0.5 + difference / 2):
        waves = _random_waves(rng, (6, 6), (60, 140))
        waves[:, 4:] *= 0.6
        breaths.append(
            Breath(
                depth=np.float32(depth),
                heart_scale=np.float32(rng.uniform(0.96, 1.04)),
                waves=waves.astype(np.float32),
            )
        )
    return breaths[0], breaths[1]


def slice_positions(patient: Patient, count: int) -> np.ndarray:
    """Returns (count,) z in mm, evenly from the diaphragm's domes to the apex."""
    low, high = 0.14, 0.92
    share = low + (high - low) * (np.arange(count) + 0.5) / count
    return (float(patient.height) * share).astype(np.float32)


def swing(waves: Array, x: Array, y: Array, z: Array) -> Array:
    """Returns sin(k . r + phase) of each wave on the last axis; rows: k, phase, ..."""
    place = jnp.stack([x, y, z, jnp.ones_like(x)], axis=-1)
    return jnp.sin(place @ waves[:, :4].T)


def cage(patient: Patient, x: Array, y: Array, z: Array) -> Array:
    """Returns approximately the signed distance to the inner chest wall."""
    share = z / patient.height
    narrow = jnp.clip((share - 0.35) / 0.68, 0.0, 0.985)
    scale = jnp.sqrt(1 - narrow**2.6) * (1 - 0.05 * jnp.clip(0.35 - share, 0.0, 1.0))
    lift = 10 * narrow**2
    return ellipse(
        x, y - lift, patient.cage[0] * scale, patient.cage[1] * scale, power=2.2
    )


def to_reference(
    patient: Patient, breath: Breath, x: Array, y: Array, z: Array
) -> tuple[Array, Array, Array]:
    """Returns the place of a scan's point at the reference breath."""
    depth = breath.depth
    back = patient.cage[1] + 0.5 * patient.wall[1]
    # The back lies on the table, the front and the sides move.
    y = back + (y - back) * (1 + 0.035 * depth)
    x = x * (1 + 0.012 * depth)
    inside = smooth(-cage(patient, x, y, z), 0.0, 30.0)
    # Lungs slide along the chest wall; the spine stays.
    inside = inside * smooth(ellipse(x, y - 66, 18, 20), 0.0, 25.0)
    rise = 18 * depth * smooth(1.05 - z / patient.height, 0.0, 1.0) * inside
    waves = breath.waves
    swings = swing(waves, x, y, z)
    shift_x, shift_y = ((swings @ waves[:, i]) * inside for i in (4, 5))
    return x + shift_x, y + shift_y, z - rise

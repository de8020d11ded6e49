"""An analytic thorax: two breaths of a patient drawn from a seed, every truth known.

Anatomy is a function of a point (x, y, z) in mm at the reference breath: x to the
image's right (the patient's left), y to the back, z to the head, 0 at the lowest tip of
the lungs. Shapes are signed distances d (negative inside); a pixel's share is
clip(1/2 - d / pixel, 0, 1), which smooths every edge over one pixel. A breath is a
smooth map from a point in the scanner to its place at the reference breath, so that the
image, the lung mask and the body mask of any breath are exact. The table stays.

Real bodies differ in more ways: this is for tests, quick starts and known truth.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

# Vessel segments drawn in one slice, those nearest to it, and the side in mm of the
# window one is drawn in: its length, twice its radius, and how far a breath moves it.
_SEGMENTS = 240
_WINDOW_MM = 60
_WAVES = 12
_ISOCENTRE_MM = 8.0  # the body's y at the image's centre

_AIR, _FAT, _MUSCLE, _BLOOD, _LUNG = -1000.0, -100.0, 50.0, 42.0, -865.0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "height",
        "cage",
        "wall",
        "fat",
        "heart",
        "dome",
        "lung_hu",
        "phase",
        "waves",
        "vessels",
    ],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """What differs between patients; lengths in mm. A pytree of arrays.

    Attributes:
      height: of the lungs, lowest tip to apex.
      cage: (2,) half-axes of the inner chest, across and front to back.
      wall: (2,) thickness of muscle and ribs, at the sides and at the front.
      fat: thickness under the skin.
      heart: (6,) centre x, y, z and half-axes.
      dome: (2,) height of the diaphragm's domes, right and left.
      lung_hu: mean HU of lung tissue.
      phase: along z, where ribs and vertebrae start.
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


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["depth", "heart_scale", "waves"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Breath:
    """How far a scan is from the reference breath. A pytree of arrays.

    Attributes:
      depth: 0 is the reference, positive exhaled: 1 lifts the diaphragm by 18 mm,
        lowers the chest by 3.5 % and narrows it by 1.2 %.
      heart_scale: the heart's size, relative to the patient's.
      waves: (6, 6) wave vector per mm, phase and displacement (x, y) in mm of what is
        irregular in the lungs.
    """

    depth: Any
    heart_scale: Any
    waves: Any


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["hu", "lung", "body"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomSlices:
    """Noise-free images and exact masks, (n, size, size).

    Attributes:
      hu: HU.
      lung: pixels that are mostly lung (vessels inside it included).
      body: pixels that are mostly body.
    """

    hu: Any
    lung: Any
    body: Any


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _vessel_tree(rng: np.random.Generator, height: float) -> np.ndarray:
    """(s, 7): trees from both hila, every branch forking six times, all at once."""
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


def create_patient(seed: int) -> Patient:
    """A patient: the same seed is the same patient, on every machine."""
    rng = np.random.default_rng([seed, 0])
    height = rng.uniform(205, 240)
    size = rng.uniform(0.93, 1.06)
    waves = rng.normal(size=(_WAVES, 4))
    length = np.geomspace(5, 45, _WAVES)  # mm
    waves[:, :3] *= (2 * math.pi / length / np.linalg.norm(waves[:, :3], axis=1))[
        :, None
    ]
    waves[:, 3] = rng.uniform(0, 2 * math.pi, _WAVES)
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
    """Two breaths of a patient, deep and shallower or the reverse."""
    rng = np.random.default_rng([seed, 1])
    difference = rng.uniform(0.6, 1.0) * rng.choice([-1, 1])
    breaths = []
    for depth in (0.5 - difference / 2, 0.5 + difference / 2):
        waves = rng.normal(size=(6, 6))
        length = np.geomspace(60, 140, 6)
        norm = np.linalg.norm(waves[:, :3], axis=1)
        waves[:, :3] *= (2 * math.pi / length / norm)[:, None]
        waves[:, 3] = rng.uniform(0, 2 * math.pi, 6)
        waves[:, 4:] *= 0.6
        breaths.append(
            Breath(
                depth=np.float32(depth),
                heart_scale=np.float32(rng.uniform(0.96, 1.04)),
                waves=waves.astype(np.float32),
            )
        )
    return breaths[0], breaths[1]


def _ellipse(x: Array, y: Array, a: Any, b: Any, power: float = 2.0) -> Array:
    """About the signed distance to |x/a|^power + |y/b|^power = 1."""
    u, v = jnp.abs(x) / a + 1e-6, jnp.abs(y) / b + 1e-6
    radius = (u**power + v**power) ** (1 / power)
    slope = jnp.hypot(u ** (power - 1) / a, v ** (power - 1) / b)
    return (radius - 1) * radius ** (power - 1) / slope


def _ellipsoid(x: Array, y: Array, z: Array, a: Any, b: Any, c: Any) -> Array:
    radius = jnp.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 + 1e-6)
    slope = jnp.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2 + 1e-9)
    return (radius - 1) * radius / slope


def _segment(x: Array, y: Array, start: Any, end: Any) -> Array:
    """Distance to a line segment in the plane."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)
    along = jnp.clip(along, 0.0, 1.0)
    return jnp.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def _join(*distances: Array, width: float = 8.0) -> Array:
    """Union with a fillet: smooth minimum (polynomial)."""
    result = distances[0]
    for other in distances[1:]:
        overlap = jnp.maximum(width - jnp.abs(result - other), 0.0) / width
        result = jnp.minimum(result, other) - overlap * overlap * width / 4
    return result


def _cut(*distances: Array, width: float = 6.0) -> Array:
    """Intersection with rounded corners."""
    return -_join(*(-distance for distance in distances), width=width)


def _smooth(value: Array, low: float, high: float) -> Array:
    share = jnp.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3 - 2 * share)


def _swing(waves: Array, x: Array, y: Array, z: Array) -> Array:
    """sin(k . r + phase) of each wave, last; rows of waves: k, phase, ..."""
    place = jnp.stack([x, y, z, jnp.ones_like(x)], axis=-1)
    return jnp.sin(place @ waves[:, :4].T)


def _texture(waves: Array, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Fine and coarse irregularity, each of standard deviation about 1."""
    swing = _swing(waves, x, y, z)
    half = _WAVES // 2
    scale = math.sqrt(2 / half)
    return swing[..., :half].sum(-1) * scale, swing[..., half:].sum(-1) * scale


def _cage(patient: Patient, x: Array, y: Array, z: Array) -> Array:
    """About the signed distance to the inner chest wall."""
    share = z / patient.height
    narrow = jnp.clip((share - 0.35) / 0.68, 0.0, 0.985)
    scale = jnp.sqrt(1 - narrow**2.6) * (1 - 0.05 * jnp.clip(0.35 - share, 0.0, 1.0))
    lift = 10 * narrow**2
    return _ellipse(
        x, y - lift, patient.cage[0] * scale, patient.cage[1] * scale, power=2.2
    )


def _to_reference(
    patient: Patient, breath: Breath, x: Array, y: Array, z: Array
) -> tuple[Array, Array, Array]:
    """Where a point of the scan is at the reference breath."""
    depth = breath.depth
    back = patient.cage[1] + 0.5 * patient.wall[1]
    # The back lies on the table, the front and the sides move.
    y = back + (y - back) * (1 + 0.035 * depth)
    x = x * (1 + 0.012 * depth)
    inside = _smooth(-_cage(patient, x, y, z), 0.0, 30.0)
    # Lungs slide along the chest wall; the spine stays.
    inside = inside * _smooth(_ellipse(x, y - 66, 18, 20), 0.0, 25.0)
    rise = 18 * depth * _smooth(1.05 - z / patient.height, 0.0, 1.0) * inside
    waves = breath.waves
    swing = _swing(waves, x, y, z)
    shift_x, shift_y = ((swing @ waves[:, i]) * inside for i in (4, 5))
    return x + shift_x, y + shift_y, z - rise


def _vessels(
    patient: Patient, breath: Breath, place: Array, z_mm: Array, pixel: float
) -> Array:
    """Share of each pixel that vessels cover; place holds x, y, z of the pixels."""
    size = place.shape[1]
    start, end, radius = jnp.split(patient.vessels, [3, 6], axis=1)
    radius = radius[:, 0]
    middle = (start + end) / 2
    # The height a segment is seen from: a breath lifts the slice's plane there.
    height = _to_reference(
        patient, breath, middle[:, 0], middle[:, 1], jnp.full_like(radius, z_mm)
    )[2]
    low, high = jnp.minimum(start[:, 2], end[:, 2]), jnp.maximum(start[:, 2], end[:, 2])
    far = jnp.abs(height - jnp.clip(height, low, high)) - radius
    _, nearest = jax.lax.top_k(-far, min(_SEGMENTS, far.shape[0]))
    window = min(size, math.ceil(_WINDOW_MM / pixel))
    centre = middle[:, :2] / pixel + (size - 1) / 2
    corner_column = jnp.round(centre[:, 0] - window / 2).astype(jnp.int32)
    row_offset = _ISOCENTRE_MM / pixel
    corner_row = jnp.round(centre[:, 1] - row_offset - window / 2).astype(jnp.int32)

    def add_vessel(covered: Array, index: Array) -> tuple[Array, None]:
        # dynamic_slice moves a window that hangs over the edge inside.
        corner = (corner_row[index], corner_column[index])
        part = jax.lax.dynamic_slice(place, (0, *corner), (3, window, window))
        axis = (end[index] - start[index])[:, None, None]
        offset = part - start[index][:, None, None]
        along = jnp.sum(offset * axis, axis=0) / jnp.sum(axis * axis)
        offset = offset - jnp.clip(along, 0.0, 1.0)[None] * axis
        distance = jnp.sqrt(jnp.sum(offset * offset, axis=0))
        share = jnp.clip(0.5 - (distance - radius[index]) / pixel, 0.0, 1.0)
        share = share * jnp.minimum(1.0, 2.2 * radius[index] / pixel)
        before = jax.lax.dynamic_slice(covered, corner, (window, window))
        after = jnp.maximum(before, share)
        return jax.lax.dynamic_update_slice(covered, after, corner), None

    return jax.lax.scan(add_vessel, jnp.zeros((size, size)), nearest)[0]


def _slice(
    patient: Patient, breath: Breath, z_mm: Array, size: int, pixel: float
) -> tuple[Array, Array, Array]:
    axis = (jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2) * pixel
    scan_x = jnp.broadcast_to(axis[None, :], (size, size))
    scan_y = jnp.broadcast_to(axis[:, None], (size, size)) + _ISOCENTRE_MM

    def share(distance: Array) -> Array:
        return jnp.clip(0.5 - distance / pixel, 0.0, 1.0)

    def paint(image: Array, value: Any, distance: Array) -> Array:
        return image + (value - image) * share(distance)

    x, y, z = _to_reference(
        patient, breath, scan_x, scan_y, jnp.full((size, size), z_mm)
    )
    # Once for the slice, not once for each of the many expressions that use them.
    x, y, z, fine, coarse = jax.lax.optimization_barrier(
        (x, y, z, *_texture(patient.waves, x, y, z))
    )
    relative = z / patient.height

    # Table: two shells with foam between, below the back, not moving.
    surface = patient.cage[1] + patient.wall[1] + patient.fat + 3
    arc = scan_y - surface + (scan_x / 46) ** 2 * 0.35
    image = jnp.full((size, size), _AIR)
    wide = jnp.abs(scan_x) - 205
    image = paint(image, -960.0, jnp.maximum(jnp.abs(arc - 15) - 13, wide))
    for depth in (2.0, 28.0):
        image = paint(image, -250.0, jnp.maximum(jnp.abs(arc - depth) - 1.1, wide))

    # Body: skin, fat, muscle with fat between its layers.
    cage = _cage(patient, x, y, z)
    shoulder = _smooth(relative, 0.72, 1.0)
    across = patient.cage[0] + patient.wall[0] + 16 * shoulder
    front = patient.cage[1] + patient.wall[1] - 8 * shoulder
    muscle = _ellipse(x, y, across, front, power=2.35)
    body = _ellipse(x, y, across + patient.fat, front + patient.fat, power=2.35)
    image = paint(image, 15.0, body)
    image = paint(image, _FAT + 8 * coarse, body + 2.2)
    image = paint(image, _MUSCLE + 6 * coarse, muscle)
    streak = jnp.abs(muscle + 7 + 2 * coarse) - 1.2
    image = paint(image, -70.0, jnp.maximum(streak, -jnp.abs(x) * 0.4 + 14))

    # Ribs: slanted bands of a ring; bone around marrow, cartilage in front.
    ring = jnp.abs(cage - 8.0) - 4.2
    around = jnp.arctan2(jnp.abs(x), y)  # 0 at the back, pi in front
    slope = z + 42 * (1 - jnp.cos(around)) / 2 * 1.7 + patient.phase
    band = jnp.abs(jnp.mod(slope, 27.0) - 13.5) - 6.0
    rib = _cut(ring, band, width=3.0)
    rib = jnp.maximum(rib, 18 - jnp.abs(x))
    front_end = _smooth(around, 2.45, 2.6)
    image = paint(image, 620 - 520 * front_end, rib)
    image = paint(image, 220 - 130 * front_end, rib + 2.0)

    # Shoulder blades and breastbone.
    for sign in (-1.0, 1.0):
        blade = _segment(
            x,
            y,
            (sign * (patient.cage[0] - 48), patient.cage[1] - 2),
            (sign * (patient.cage[0] + 6), patient.cage[1] - 44),
        )
        blade = jnp.maximum(blade - 3.2, (0.5 - relative) * 100)
        image = paint(image, 520.0, blade)
        image = paint(image, 180.0, blade + 1.6)
    sternum = _ellipse(x, y + patient.cage[1] + 6, 19.0, 6.5)
    sternum = jnp.maximum(sternum, (0.3 - relative) * 100)
    image = paint(image, 450.0, sternum)
    image = paint(image, 140 + 20 * fine, sternum + 1.5)

    # Inside the chest: fat, then organs.
    image = paint(image, _FAT + 25 + 14 * coarse, cage)

    # Spine.
    column = jnp.mod(z + patient.phase, 26.0)
    disc = _smooth(jnp.abs(column - 13.0), 9.5, 11.5)
    vertebra = _ellipse(x, y - 66, 18.5, 15.0, power=2.3)
    canal = _ellipse(x, y - 90, 10.0, 8.5)
    arch = jnp.abs(canal - 3.5) - 3.0
    spinous = jnp.maximum(_segment(x, y, (0.0, 102.0), (0.0, 116.0)) - 3.5, band)
    transverse = jnp.minimum(
        _segment(x, y, (9.0, 88.0), (33.0, 95.0)),
        _segment(x, y, (-9.0, 88.0), (-33.0, 95.0)),
    )
    posterior = jnp.minimum(arch, jnp.minimum(spinous, transverse - 4.2))
    bulk = _ellipse(x, y - 92, 44.0, 26.0, power=2.6)
    image = paint(image, _MUSCLE + 5 * coarse, jnp.maximum(bulk, muscle + 2))
    image = paint(image, 560.0, posterior)
    image = paint(image, 260 + 25 * fine, posterior + 1.8)
    image = paint(image, 25.0, canal)
    image = paint(image, 650 - 420 * disc, vertebra)
    image = paint(image, 230 - 140 * disc + 25 * fine, vertebra + 1.8)

    # Heart, great vessels, trachea: what keeps the lungs apart.
    scale = breath.heart_scale
    hx, hy, hz, ha, hb, hc = (patient.heart[i] for i in range(6))
    turned_x = (x - hx) * 0.88 + (y - hy) * 0.47
    turned_y = (y - hy) * 0.88 - (x - hx) * 0.47
    heart = _ellipsoid(turned_x, turned_y, z - hz, ha * scale, hb * scale, hc)
    above = (0.46 - relative) * 60
    ascending = jnp.maximum(_ellipse(x + 8, y + 24, 16.0, 16.0), above)
    cava = jnp.maximum(_ellipse(x + 30, y + 14, 9.0, 10.0), above)
    pulmonary = _ellipsoid(x - 14, y + 14, z - 0.56 * patient.height, 24, 15, 15)
    arteries = _ellipsoid(jnp.abs(x) - 27, y - 2, z - 0.53 * patient.height, 20, 11, 13)
    arch_z = 0.72 * patient.height
    top = jnp.maximum(
        _segment(x, y, (-10.0, -22.0), (20.0, 34.0)) - 12.0, jnp.abs(z - arch_z) - 11
    )
    descending = jnp.maximum(_ellipse(x - 20, y - 42, 12.5, 12.5), z - arch_z)
    branches = jnp.minimum(
        _ellipse(x + 13, y + 8, 6.5, 6.5),
        jnp.minimum(
            _ellipse(x - 9, y + 8, 5.0, 5.0), _ellipse(x - 19, y - 6, 5.5, 5.5)
        ),
    )
    branches = jnp.maximum(branches, arch_z - z)
    oesophagus = _ellipse(x - 4, y - 36, 9.0, 6.0)
    fork = 0.58 * patient.height
    spread = jnp.clip(fork - z, 0.0, 40.0) * 0.75
    trachea = jnp.maximum(
        _ellipse(jnp.abs(x + 1) - spread, y - 14, 8.5 - 0.06 * spread, 9.0),
        jnp.maximum((0.47 * patient.height - z) * 0.8, spread - 26),
    )
    blood = jnp.minimum(
        jnp.minimum(jnp.minimum(ascending, cava), jnp.minimum(pulmonary, arteries)),
        jnp.minimum(jnp.minimum(top, descending), jnp.minimum(branches, heart)),
    )
    upper = _ellipse(x - 2, y + 8, 33 - 8 * _smooth(relative, 0.7, 0.95), 46.0)
    upper = jnp.maximum(upper, (0.40 - relative) * 80)
    behind = _ellipse(x - 6, y - 40, 22.0, 26.0)
    septum = jnp.maximum(jnp.abs(x) - 3.0, y + 20)
    keep_out = _join(
        heart - 3, upper, behind, vertebra - 5, bulk, septum, trachea - 4, width=12.0
    )
    keep_out = jnp.minimum(keep_out, blood - 1.5)

    # Diaphragm: a dome under each lung; liver, stomach and spleen below.
    dome = jnp.where(
        x < 0,
        patient.dome[0] * (1.25 - ((x + 62) / 86) ** 2 - ((y + 8) / 98) ** 2),
        patient.dome[1] * (1.25 - ((x - 66) / 84) ** 2 - ((y - 2) / 92) ** 2),
    )
    dome = dome - 0.30 * y
    diaphragm = (dome - z) * 0.62
    abdomen = _cut(cage + 1.5, -diaphragm + 1.0, keep_out * 0 - 1)
    liver = _cut(abdomen + 2, x - 22 + 0.2 * y, width=14.0)
    spleen = _cut(abdomen + 3, 62 - x - 0.35 * y, width=14.0)
    stomach = jnp.maximum(_ellipsoid(x - 52, y + 18, z - 12, 42, 38, 42), abdomen + 2)
    image = paint(image, _FAT + 10 * coarse, abdomen)
    image = paint(image, 45.0, jnp.abs(abdomen + 1.2) - 1.4)
    image = paint(image, 52 + 4 * fine, spleen)
    image = paint(image, 30 + 8 * coarse, stomach)
    image = paint(image, -960.0, jnp.maximum(stomach + 4, y + 34))
    image = paint(image, 62 + 5 * fine, liver)

    # Lungs: denser at the back, with fine and coarse structure.
    lung = _cut(cage, -keep_out, diaphragm, width=7.0)
    tissue = patient.lung_hu + 0.32 * (y + 10) + 9 * fine + 8 * coarse
    image = paint(image, 30.0, jnp.minimum(oesophagus, heart))
    image = paint(image, _BLOOD + 3 * coarse, blood)
    image = paint(image, tissue, lung)

    vessels = _vessels(patient, breath, jnp.stack([x, y, z]), z_mm, pixel)
    inside_lung = share(lung + 1.5)
    image = image + (_BLOOD - image) * vessels * inside_lung

    # Trachea and bronchi last: wall, then air.
    airway = jnp.maximum(trachea, -body - 400)
    image = paint(image, 20.0, airway - 1.6)
    image = paint(image, -985.0, airway)
    return image, lung < 0, body < 0


_jit_slice = jax.jit(_slice, static_argnames=("size", "pixel"))


def slice_positions(patient: Patient, count: int) -> np.ndarray:
    """(count,) z in mm, evenly from the domes of the diaphragm to the apex."""
    low, high = 0.14, 0.92
    share = low + (high - low) * (np.arange(count) + 0.5) / count
    return (float(patient.height) * share).astype(np.float32)


def render(
    patient: Patient,
    breath: Breath,
    z_mm: Any,
    *,
    size: int = 512,
    field_mm: float | int = 400.0,
) -> PhantomSlices:
    """Noise-free axial slices of a patient in one breath, with exact masks.

    Args:
      patient: from `create_patient`.
      breath: from `create_breaths`.
      z_mm: (n,) positions along the body, from `slice_positions`.
      size: pixels along a side, at least 32.
      field_mm: side of the image; a pixel is field_mm / size.

    Returns:
      HU float32 and masks, (n, size, size).

    Raises:
      ValueError: a size or field that shows no thorax.
    """
    if size < 32:
        raise ValueError(f"size = {size}; at least 32 pixels show a thorax.")
    if not 300 <= field_mm <= 1000:
        raise ValueError(f"field_mm = {field_mm}; from 300 to 1000 mm hold a thorax.")
    pixel = field_mm / size
    # Slice by slice: compiled once for a size, however many there are.
    drawn = [
        _jit_slice(patient, breath, z, size=size, pixel=pixel)
        for z in np.atleast_1d(np.asarray(z_mm, np.float32))
    ]
    hu, lung, body = (jnp.stack(part) for part in zip(*drawn, strict=True))
    return PhantomSlices(hu=hu, lung=lung, body=body)

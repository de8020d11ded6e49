"""Renders slices of a phantom, with exact masks.

Shapes are signed distances d (negative inside); a pixel's share is
clip(1/2 - d / pixel, 0, 1), which smooths every edge over one pixel. Shapes are painted
over each other, from the table to the airways. Every point is first mapped to its place
at the reference breath, so the image, the lung mask and the body mask of any breath are
exact. The table does not move.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ipv2.phantom.patient import Breath, Patient, cage, swing, to_reference
from ipv2.phantom.shapes import cut, ellipse, ellipsoid, join, segment, smooth

# Each slice shows its _SEGMENTS nearest vessel segments. Each is drawn in a window with
# this side in mm, enough for its length, twice its radius, and its motion in a breath.
_SEGMENTS = 240
_WINDOW_MM = 60
_ISOCENTRE_MM = 8.0  # the body's y at the image's centre

_AIR, _FAT, _MUSCLE, _BLOOD = -1000.0, -100.0, 50.0, 42.0


@jax.tree_util.register_dataclass
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


def render(
    patient: Patient,
    breath: Breath,
    z_mm: Any,
    *,
    size: int = 512,
    field_mm: float | int = 400.0,
) -> PhantomSlices:
    """Renders noise-free axial slices of a patient in one breath, with exact masks.

    Args:
      patient: a patient of `create_patient`.
      breath: a breath of `create_breaths`.
      z_mm: (n,) positions along the body, see `slice_positions`.
      size: height and width in pixels, at least 32.
      field_mm: height and width of the image; a pixel is field_mm / size.

    Returns:
      HU float32 and masks, (n, size, size).

    Raises:
      ValueError: The size or field shows no thorax.
    """
    if size < 32:
        raise ValueError(f"size = {size}; at least 32 pixels show a thorax.")
    if not 300 <= field_mm <= 1000:
        raise ValueError(f"field_mm = {field_mm}; from 300 to 1000 mm hold a thorax.")
    pixel = field_mm / size
    # Slice by slice, so that one size is compiled once for any number of slices.
    drawn = [
        _jit_slice(patient, breath, z, size=size, pixel=pixel)
        for z in np.atleast_1d(np.asarray(z_mm, np.float32))
    ]
    hu, lung, body = (jnp.stack(part) for part in zip(*drawn, strict=True))
    return PhantomSlices(hu=hu, lung=lung, body=body)


class _Plane(NamedTuple):
    """The pixels of a slice, arrays of (size, size).

    Attributes:
      scan_x: place in the scanner in mm, with `scan_y`.
      x: place at the reference breath in mm, with `y` and `z`.
      relative: z as a share of the lungs' height.
      fine: irregularity of tissue, of standard deviation about 1; `coarse` has longer
        waves.
      pixel: side of a pixel in mm.
    """

    scan_x: Array
    scan_y: Array
    x: Array
    y: Array
    z: Array
    relative: Array
    fine: Array
    coarse: Array
    pixel: float

    def share(self, distance: Array) -> Array:
        """Returns the share of each pixel that a shape covers."""
        return jnp.clip(0.5 - distance / self.pixel, 0.0, 1.0)

    def paint(self, image: Array, value: Any, distance: Array) -> Array:
        """Paints a shape with a value over the image."""
        return image + (value - image) * self.share(distance)


class _Organs(NamedTuple):
    """Distances to the organs between the lungs, and to all space outside the lungs."""

    heart: Array
    blood: Array
    oesophagus: Array
    trachea: Array
    keep_out: Array


def _slice(
    patient: Patient, breath: Breath, z_mm: Array, size: int, pixel: float
) -> tuple[Array, Array, Array]:
    """Returns HU, lung and body of one slice."""
    at = _plane(patient, breath, z_mm, size, pixel)
    image = _table(patient, at)
    chest = cage(patient, at.x, at.y, at.z)
    image, muscle, body = _flesh(patient, at, image)
    image, band = _ribs(patient, at, image, chest)
    image = _shoulder_blades(patient, at, image)
    image = _breastbone(patient, at, image)
    # Inside the chest: fat, then organs.
    image = at.paint(image, _FAT + 25 + 14 * at.coarse, chest)
    image, vertebra, bulk = _spine(patient, at, image, muscle, band)
    organs = _organs(patient, breath, at, vertebra, bulk)
    image, diaphragm = _abdomen(patient, at, image, chest, organs.keep_out)
    lung = cut(chest, -organs.keep_out, diaphragm, width=7.0)
    image = _lungs(patient, at, image, lung, organs)
    vessels = _vessels(patient, breath, jnp.stack([at.x, at.y, at.z]), z_mm, pixel)
    image = image + (_BLOOD - image) * vessels * at.share(lung + 1.5)
    # Trachea and bronchi last: wall, then air.
    airway = jnp.maximum(organs.trachea, -body - 400)
    image = at.paint(image, 20.0, airway - 1.6)
    image = at.paint(image, -985.0, airway)
    return image, lung < 0, body < 0


_jit_slice = jax.jit(_slice, static_argnames=("size", "pixel"))


def _plane(
    patient: Patient, breath: Breath, z_mm: Array, size: int, pixel: float
) -> _Plane:
    axis = (jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2) * pixel
    scan_x = jnp.broadcast_to(axis[None, :], (size, size))
    scan_y = jnp.broadcast_to(axis[:, None], (size, size)) + _ISOCENTRE_MM
    x, y, z = to_reference(
        patient, breath, scan_x, scan_y, jnp.full((size, size), z_mm)
    )
    # The barrier computes these once per slice, not once per expression that uses them.
    x, y, z, fine, coarse = jax.lax.optimization_barrier(
        (x, y, z, *_texture(patient.waves, x, y, z))
    )
    return _Plane(scan_x, scan_y, x, y, z, z / patient.height, fine, coarse, pixel)


def _table(patient: Patient, at: _Plane) -> Array:
    """Draws the table: two shells with foam between them below the back, not moving."""
    surface = patient.cage[1] + patient.wall[1] + patient.fat + 3
    arc = at.scan_y - surface + (at.scan_x / 46) ** 2 * 0.35
    image = jnp.full(arc.shape, _AIR)
    wide = jnp.abs(at.scan_x) - 205
    image = at.paint(image, -960.0, jnp.maximum(jnp.abs(arc - 15) - 13, wide))
    for depth in (2.0, 28.0):
        image = at.paint(image, -250.0, jnp.maximum(jnp.abs(arc - depth) - 1.1, wide))
    return image


def _flesh(patient: Patient, at: _Plane, image: Array) -> tuple[Array, Array, Array]:
    """Paints skin, fat and muscle; returns the shapes of muscle and body too."""
    x, y = at.x, at.y
    shoulder = smooth(at.relative, 0.72, 1.0)
    across = patient.cage[0] + patient.wall[0] + 16 * shoulder
    front = patient.cage[1] + patient.wall[1] - 8 * shoulder
    muscle = ellipse(x, y, across, front, power=2.35)
    body = ellipse(x, y, across + patient.fat, front + patient.fat, power=2.35)
    image = at.paint(image, 15.0, body)
    image = at.paint(image, _FAT + 8 * at.coarse, body + 2.2)
    image = at.paint(image, _MUSCLE + 6 * at.coarse, muscle)
    streak = jnp.abs(muscle + 7 + 2 * at.coarse) - 1.2
    image = at.paint(image, -70.0, jnp.maximum(streak, -jnp.abs(x) * 0.4 + 14))
    return image, muscle, body


def _ribs(
    patient: Patient, at: _Plane, image: Array, chest: Array
) -> tuple[Array, Array]:
    """Paints ribs as slanted bands of a ring, cartilage in front; returns the band."""
    ring = jnp.abs(chest - 8.0) - 4.2
    around = jnp.arctan2(jnp.abs(at.x), at.y)  # 0 at the back, pi in front
    slope = at.z + 42 * (1 - jnp.cos(around)) / 2 * 1.7 + patient.phase
    band = jnp.abs(jnp.mod(slope, 27.0) - 13.5) - 6.0
    rib = cut(ring, band, width=3.0)
    rib = jnp.maximum(rib, 18 - jnp.abs(at.x))
    front_end = smooth(around, 2.45, 2.6)
    image = at.paint(image, 620 - 520 * front_end, rib)
    return at.paint(image, 220 - 130 * front_end, rib + 2.0), band


def _shoulder_blades(patient: Patient, at: _Plane, image: Array) -> Array:
    for sign in (-1.0, 1.0):
        blade = segment(
            at.x,
            at.y,
            (sign * (patient.cage[0] - 48), patient.cage[1] - 2),
            (sign * (patient.cage[0] + 6), patient.cage[1] - 44),
        )
        blade = jnp.maximum(blade - 3.2, (0.5 - at.relative) * 100)
        image = at.paint(image, 520.0, blade)
        image = at.paint(image, 180.0, blade + 1.6)
    return image


def _breastbone(patient: Patient, at: _Plane, image: Array) -> Array:
    sternum = ellipse(at.x, at.y + patient.cage[1] + 6, 19.0, 6.5)
    sternum = jnp.maximum(sternum, (0.3 - at.relative) * 100)
    image = at.paint(image, 450.0, sternum)
    return at.paint(image, 140 + 20 * at.fine, sternum + 1.5)


def _spine(
    patient: Patient, at: _Plane, image: Array, muscle: Array, band: Array
) -> tuple[Array, Array, Array]:
    """Paints vertebrae, discs and muscle; returns shapes of vertebra and muscle too."""
    x, y, fine = at.x, at.y, at.fine
    column = jnp.mod(at.z + patient.phase, 26.0)
    disc = smooth(jnp.abs(column - 13.0), 9.5, 11.5)
    vertebra = ellipse(x, y - 66, 18.5, 15.0, power=2.3)
    canal = ellipse(x, y - 90, 10.0, 8.5)
    arch = jnp.abs(canal - 3.5) - 3.0
    spinous = jnp.maximum(segment(x, y, (0.0, 102.0), (0.0, 116.0)) - 3.5, band)
    transverse = jnp.minimum(
        segment(x, y, (9.0, 88.0), (33.0, 95.0)),
        segment(x, y, (-9.0, 88.0), (-33.0, 95.0)),
    )
    posterior = jnp.minimum(arch, jnp.minimum(spinous, transverse - 4.2))
    bulk = ellipse(x, y - 92, 44.0, 26.0, power=2.6)
    image = at.paint(image, _MUSCLE + 5 * at.coarse, jnp.maximum(bulk, muscle + 2))
    image = at.paint(image, 560.0, posterior)
    image = at.paint(image, 260 + 25 * fine, posterior + 1.8)
    image = at.paint(image, 25.0, canal)
    image = at.paint(image, 650 - 420 * disc, vertebra)
    image = at.paint(image, 230 - 140 * disc + 25 * fine, vertebra + 1.8)
    return image, vertebra, bulk


def _organs(
    patient: Patient, breath: Breath, at: _Plane, vertebra: Array, bulk: Array
) -> _Organs:
    x, y, relative = at.x, at.y, at.relative
    heart = _heart(patient, breath, at)
    blood = _blood(patient, at, heart)
    oesophagus = ellipse(x - 4, y - 36, 9.0, 6.0)
    trachea = _trachea(patient, at)
    upper = ellipse(x - 2, y + 8, 33 - 8 * smooth(relative, 0.7, 0.95), 46.0)
    upper = jnp.maximum(upper, (0.40 - relative) * 80)
    behind = ellipse(x - 6, y - 40, 22.0, 26.0)
    septum = jnp.maximum(jnp.abs(x) - 3.0, y + 20)
    keep_out = join(
        heart - 3, upper, behind, vertebra - 5, bulk, septum, trachea - 4, width=12.0
    )
    return _Organs(
        heart, blood, oesophagus, trachea, jnp.minimum(keep_out, blood - 1.5)
    )


def _heart(patient: Patient, breath: Breath, at: _Plane) -> Array:
    scale = breath.heart_scale
    hx, hy, hz, ha, hb, hc = (patient.heart[i] for i in range(6))
    turned_x = (at.x - hx) * 0.88 + (at.y - hy) * 0.47
    turned_y = (at.y - hy) * 0.88 - (at.x - hx) * 0.47
    return ellipsoid(turned_x, turned_y, at.z - hz, ha * scale, hb * scale, hc)


def _blood(patient: Patient, at: _Plane, heart: Array) -> Array:
    """Returns the distance to heart and great vessels."""
    x, y, z = at.x, at.y, at.z
    above = (0.46 - at.relative) * 60
    ascending = jnp.maximum(ellipse(x + 8, y + 24, 16.0, 16.0), above)
    cava = jnp.maximum(ellipse(x + 30, y + 14, 9.0, 10.0), above)
    pulmonary = ellipsoid(x - 14, y + 14, z - 0.56 * patient.height, 24, 15, 15)
    arteries = ellipsoid(jnp.abs(x) - 27, y - 2, z - 0.53 * patient.height, 20, 11, 13)
    arch_z = 0.72 * patient.height
    top = jnp.maximum(
        segment(x, y, (-10.0, -22.0), (20.0, 34.0)) - 12.0, jnp.abs(z - arch_z) - 11
    )
    descending = jnp.maximum(ellipse(x - 20, y - 42, 12.5, 12.5), z - arch_z)
    branches = jnp.minimum(
        ellipse(x + 13, y + 8, 6.5, 6.5),
        jnp.minimum(ellipse(x - 9, y + 8, 5.0, 5.0), ellipse(x - 19, y - 6, 5.5, 5.5)),
    )
    branches = jnp.maximum(branches, arch_z - z)
    return jnp.minimum(
        jnp.minimum(jnp.minimum(ascending, cava), jnp.minimum(pulmonary, arteries)),
        jnp.minimum(jnp.minimum(top, descending), jnp.minimum(branches, heart)),
    )


def _trachea(patient: Patient, at: _Plane) -> Array:
    """Returns the distance to one tube above that forks into two below."""
    fork = 0.58 * patient.height
    spread = jnp.clip(fork - at.z, 0.0, 40.0) * 0.75
    return jnp.maximum(
        ellipse(jnp.abs(at.x + 1) - spread, at.y - 14, 8.5 - 0.06 * spread, 9.0),
        jnp.maximum((0.47 * patient.height - at.z) * 0.8, spread - 26),
    )


def _abdomen(
    patient: Patient, at: _Plane, image: Array, chest: Array, keep_out: Array
) -> tuple[Array, Array]:
    """Paints domes, liver, stomach and spleen; returns the diaphragm's shape too."""
    x, y, z = at.x, at.y, at.z
    dome = jnp.where(
        x < 0,
        patient.dome[0] * (1.25 - ((x + 62) / 86) ** 2 - ((y + 8) / 98) ** 2),
        patient.dome[1] * (1.25 - ((x - 66) / 84) ** 2 - ((y - 2) / 92) ** 2),
    )
    dome = dome - 0.30 * y
    diaphragm = (dome - z) * 0.62
    abdomen = cut(chest + 1.5, -diaphragm + 1.0, keep_out * 0 - 1)
    liver = cut(abdomen + 2, x - 22 + 0.2 * y, width=14.0)
    spleen = cut(abdomen + 3, 62 - x - 0.35 * y, width=14.0)
    stomach = jnp.maximum(ellipsoid(x - 52, y + 18, z - 12, 42, 38, 42), abdomen + 2)
    image = at.paint(image, _FAT + 10 * at.coarse, abdomen)
    image = at.paint(image, 45.0, jnp.abs(abdomen + 1.2) - 1.4)
    image = at.paint(image, 52 + 4 * at.fine, spleen)
    image = at.paint(image, 30 + 8 * at.coarse, stomach)
    image = at.paint(image, -960.0, jnp.maximum(stomach + 4, y + 34))
    return at.paint(image, 62 + 5 * at.fine, liver), diaphragm


def _lungs(
    patient: Patient, at: _Plane, image: Array, lung: Array, organs: _Organs
) -> Array:
    """Paints organs between the lungs, then the lungs, which are denser at the back."""
    tissue = patient.lung_hu + 0.32 * (at.y + 10) + 9 * at.fine + 8 * at.coarse
    image = at.paint(image, 30.0, jnp.minimum(organs.oesophagus, organs.heart))
    image = at.paint(image, _BLOOD + 3 * at.coarse, organs.blood)
    return at.paint(image, tissue, lung)


def _texture(waves: Array, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Returns fine and coarse irregularity, each of standard deviation about 1."""
    swings = swing(waves, x, y, z)
    half = len(waves) // 2
    scale = math.sqrt(2 / half)
    return swings[..., :half].sum(-1) * scale, swings[..., half:].sum(-1) * scale


def _vessels(
    patient: Patient, breath: Breath, place: Array, z_mm: Array, pixel: float
) -> Array:
    """Returns the vessels' share of each pixel; place holds x, y, z of the pixels."""
    size = place.shape[1]
    start, end, radius = jnp.split(patient.vessels, [3, 6], axis=1)
    radius = radius[:, 0]
    middle = (start + end) / 2
    # Height of the slice's plane at a segment, which the breath lifts.
    height = to_reference(
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
        # dynamic_slice moves windows that cross the edge back into the image.
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

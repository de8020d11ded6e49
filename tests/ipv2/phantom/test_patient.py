"""The phantom thorax shows the anatomy that radiologists expect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2 import phantom
from ipv2.phantom.patient import to_reference

SIZE = 128
PATIENT = phantom.create_patient(3)
BREATHS = phantom.create_breaths(3)
POSITION = phantom.slice_positions(PATIENT, 5)


@pytest.fixture(scope="module")
def slices():
    return [
        jax.tree.map(np.asarray, phantom.render(PATIENT, breath, POSITION, size=SIZE))
        for breath in BREATHS
    ]


def inner(mask, pixels=2):
    """Pixels with no neighbour outside the mask, within some pixels."""
    result = mask.copy()
    for axis in (1, 2):
        for step in range(1, pixels + 1):
            result &= np.roll(mask, step, axis) & np.roll(mask, -step, axis)
    return result


@pytest.mark.slow
def test_same_seed_is_the_same_patient_and_another_is_another(slices):
    again = phantom.render(
        phantom.create_patient(3), phantom.create_breaths(3)[0], POSITION, size=SIZE
    )
    np.testing.assert_array_equal(again.hu, slices[0].hu)
    other = phantom.render(phantom.create_patient(4), BREATHS[0], POSITION, size=SIZE)
    assert np.mean(np.abs(np.asarray(other.hu) - slices[0].hu) > 100) > 0.02


@pytest.mark.slow
def test_tissues_have_their_hu(slices):
    hu, lung, body = slices[0].hu, slices[0].lung, slices[0].body
    assert np.all(np.isfinite(hu)) and hu.min() >= -1024 and hu.max() < 1500
    assert -900 < np.median(hu[inner(lung)]) < -780
    assert np.all(hu[~body][:10] == -1000)
    flesh = hu[inner(body & ~lung)]
    for low, high, least in ((-130, -60, 0.05), (20, 90, 0.3), (200, 1000, 0.03)):
        assert np.mean((flesh > low) & (flesh < high)) > least, (low, high)


def test_lungs_are_two_inside_the_body_with_vessels(slices):
    hu, lung, body = slices[0].hu, slices[0].lung, slices[0].body
    assert np.all(body[lung])
    for image in lung:
        left, right = image[:, : SIZE // 2].sum(), image[:, SIZE // 2 :].sum()
        assert min(left, right) > 0.15 * max(left, right) > 0
    vessel = (hu > -500) & inner(lung)
    share = vessel.sum((1, 2)) / inner(lung).sum((1, 2))
    assert np.all(share > 0.002) and np.all(share < 0.15)


def test_anatomy_changes_along_the_body(slices):
    area = slices[0].lung.sum((1, 2))
    # Domes of the diaphragm below, apex above, widest between.
    assert area.max() in area[1:4] and area[0] < 0.7 * area.max()
    assert area[-1] < 0.8 * area.max()


def test_trachea_and_table_are_there(slices):
    hu, body = slices[0].hu, slices[0].body
    middle = hu[4][:, SIZE // 2 - 8 : SIZE // 2 + 8]
    in_body = body[4][:, SIZE // 2 - 8 : SIZE // 2 + 8]
    assert np.sum((middle < -900) & in_body) >= 9
    below = hu[2][SIZE // 2 :, SIZE // 2]
    outside = ~body[2][SIZE // 2 :, SIZE // 2]
    assert np.any((below > -700) & outside)


def test_table_and_air_do_not_breathe(slices):
    outside = ~(slices[0].body | slices[1].body)
    outside = inner(outside)
    np.testing.assert_array_equal(slices[0].hu[outside], slices[1].hu[outside])


def test_breaths_differ_by_several_millimetres(slices):
    first, second = slices
    # 400 mm / 128: a difference of this share of the lungs is a shift of some mm.
    changed = (first.lung ^ second.lung).sum((1, 2)) / first.lung.sum((1, 2))
    assert np.all(changed > 0.02) and changed.max() < 1.5
    front = [np.argmax(s.body.any(2), axis=1) for s in slices]
    back = [SIZE - np.argmax(s.body.any(2)[:, ::-1], axis=1) for s in slices]
    assert 1 <= np.abs(front[0] - front[1]).max() <= 4
    assert np.abs(back[0] - back[1]).max() <= 1


@pytest.mark.slow
def test_breath_map_does_not_fold():
    axis = np.linspace(-190, 190, 96, dtype=np.float32)
    x, y = (jnp.asarray(m) for m in np.meshgrid(axis, axis))
    for seed in range(4):
        patient, breaths = jax.tree.map(
            jnp.asarray, (phantom.create_patient(seed), phantom.create_breaths(seed))
        )
        for breath in breaths:
            for z in phantom.slice_positions(patient, 3):
                moved = to_reference(patient, breath, x, y, jnp.full_like(x, z))
                step = axis[1] - axis[0]
                (xy, xx), (yy, yx) = (
                    np.gradient(np.asarray(m), step) for m in moved[:2]
                )
                assert (xx * yy - xy * yx).min() > 0.1


@pytest.mark.slow
def test_pixel_size_does_not_move_anatomy():
    coarse, fine = (
        np.asarray(phantom.render(PATIENT, BREATHS[0], POSITION[2:3], size=size).lung)[
            0
        ]
        for size in (64, 128)
    )
    share = fine.reshape(64, 2, 64, 2).mean((1, 3))
    # Only pixels at the rim may be decided otherwise.
    assert np.mean((share > 0.5) != coarse) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 8}, "size = 8"), ({"field_mm": 100}, "field_mm = 100")],
)
def test_images_without_a_thorax_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        phantom.render(PATIENT, BREATHS[0], POSITION, **options)

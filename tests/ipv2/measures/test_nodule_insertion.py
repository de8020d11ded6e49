"""Tests of ipv2.measures.nodule_insertion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special

from ipv2.measures.nodule_insertion import (
    cut_patches,
    insert_nodules,
    measure_sharpness_px,
    nodule_cover,
)
from ipv2.measures.nodules import EMPTY, DrawnNodules

HALF, SIDE = 16, 64


def _drawn(
    diameters=(4.0, 6.0, 10.0), hu: float = -100.0, disc: bool = False
) -> DrawnNodules:
    """One slice for each diameter, with one nodule and one empty place."""
    n = len(diameters)
    return DrawnNodules(
        centre_px=jnp.broadcast_to(jnp.array([[20, 24], [44, 40]]), (n, 2, 2)),
        kind=jnp.broadcast_to(jnp.array([0, EMPTY]), (n, 2)),
        found=jnp.ones((n, 2), bool),
        diameter_mm=jnp.array([[d, 0.0] for d in diameters]),
        hu=jnp.array([[hu, 0.0]] * n),
        disc=jnp.full((n, 2), disc),
    )


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [0.3, 0.8, 1.5])
def test_a_discs_area_is_that_of_a_circle(sharpness):
    cover = nodule_cover(_drawn(disc=True), 0.7, sharpness, HALF)
    area = np.asarray(cover).sum((-2, -1))[:, 0] * 0.7**2
    expected = np.pi * np.array([4, 6, 10]) ** 2 / 4
    # The smallest is 5.7 pixels wide, of 4 samples each.
    np.testing.assert_allclose(area, expected, rtol=5e-3)
    assert not np.asarray(cover)[:, 1].any()


@pytest.mark.slow
def test_a_spheres_slices_add_up_to_its_volume():
    drawn, thickness = _drawn(), 1.25
    offsets = np.arange(-5, 6) * thickness
    volume = sum(
        np.asarray(nodule_cover(drawn, 0.7, 0.8, HALF, thickness, float(o))).sum(
            (-2, -1)
        )[:, 0]
        for o in offsets
    )
    expected = np.pi * np.array([4, 6, 10]) ** 3 / 6
    # Five depths of a slice.
    np.testing.assert_allclose(volume * 0.7**2 * thickness, expected, rtol=1e-2)


def test_a_thick_slice_holds_less_of_a_small_sphere():
    cover = np.asarray(nodule_cover(_drawn(), 0.7, 0.3, HALF, 5.0))
    # 4 mm of nodule in 5 mm of slice; five samples see 3 or 5 of them.
    assert cover[0, 0].max() == pytest.approx(0.8, abs=0.2)
    assert cover[2, 0].max() == pytest.approx(1, abs=1e-3)
    assert not np.asarray(nodule_cover(_drawn(), 0.7, 0.3, HALF, 0.0, 5.1)).any()


@pytest.mark.slow
def test_the_edge_has_the_images_sharpness():
    for sharpness in (0.6, 1.2):
        cover = np.asarray(nodule_cover(_drawn((16.0,), disc=True), 0.7, sharpness, 20))
        edge = cover[0, 0, 20]
        x = (np.arange(41) - 20.0) - 8 / 0.7
        expected = 0.5 * special.erfc(x[21:] / (sharpness * np.sqrt(2)))
        # A circle of 11 pixels is nearly a straight edge; the pixel's box is none.
        np.testing.assert_allclose(edge[21:], expected, atol=0.03)


@pytest.mark.slow
def test_a_sphere_replaces_hu_and_a_disc_adds_them():
    rng = np.random.default_rng(0)
    background = jnp.asarray(rng.normal(-850, 30, (3, SIDE, SIDE)), jnp.float32)
    sphere = np.asarray(insert_nodules(background, _drawn(), 0.5, 0.8, half_px=HALF))
    core = sphere[2, 14:27, 18:31]
    # The mean of what noise of 30 HU leaves, smoothed by 1.5 pixels; and that noise.
    assert core.mean() == pytest.approx(-100, abs=3)
    assert 25 < core.std() < 30
    disc = _drawn(hu=15.0, disc=True)
    added = np.asarray(insert_nodules(background, disc, 0.5, 0.8, half_px=HALF))
    assert (added - background)[2, 20, 24] == pytest.approx(15, abs=0.01)
    background = np.asarray(background)
    far = np.hypot(*(np.mgrid[:SIDE, :SIDE] - np.array([20, 24])[:, None, None])) > 15
    np.testing.assert_array_equal(added[:, far], background[:, far])


@pytest.mark.slow
def test_slices_have_spacings_and_sharpness_of_their_own():
    drawn = _drawn((6.0, 6.0), disc=True)
    both = np.asarray(
        nodule_cover(drawn, np.array([0.5, 0.9]), np.array([0.4, 1.2]), HALF)
    )
    for i, (spacing, sharpness) in enumerate([(0.5, 0.4), (0.9, 1.2)]):
        alone = nodule_cover(_drawn((6.0,), disc=True), spacing, sharpness, HALF)
        np.testing.assert_allclose(both[i], np.asarray(alone)[0], atol=1e-6)


@pytest.mark.slow
def test_the_insertion_can_be_compiled_without_axes_for_slices():
    drawn = jax.tree.map(lambda a: a[0], _drawn())
    background = jnp.full((SIDE, SIDE), -850.0)
    insert = jax.jit(lambda b, d, s: insert_nodules(b, d, s, 0.8, half_px=HALF))
    found = np.asarray(insert(background, drawn, 0.7))
    plain = insert_nodules(background, drawn, 0.7, 0.8, half_px=HALF)
    # float32 HU of 850.
    np.testing.assert_allclose(found, np.asarray(plain), atol=1e-3)
    patches = np.asarray(cut_patches(jnp.asarray(found), drawn.centre_px, HALF))
    np.testing.assert_array_equal(patches[0], found[4:37, 8:41])


@pytest.mark.slow
@pytest.mark.parametrize("noise_hu", [0, 20])
def test_sharpness_is_that_of_a_blurred_body(noise_hu):
    y, x = np.mgrid[: 4 * 128, : 4 * 128] / 4 - 64.0
    body = np.where(np.hypot(x, y) < 50, 40.0, -1000.0)
    body = np.where(np.hypot(x / 0.8, y - 5) < 25, -850.0, body)
    for sharpness in (0.6, 0.9, 1.5):
        fine = ndimage.gaussian_filter(body, 4 * np.sqrt(sharpness**2 - 1 / 12))
        image = fine.reshape(128, 4, 128, 4).mean((1, 3))
        noise = np.random.default_rng(0).normal(0, noise_hu, image.shape)
        found = float(measure_sharpness_px(jnp.asarray(image + noise, jnp.float32)))
        assert found == pytest.approx(sharpness, rel=0.15)


@pytest.mark.slow
def test_an_image_without_edges_has_no_sharpness():
    assert np.isnan(float(measure_sharpness_px(jnp.zeros((32, 32)))))

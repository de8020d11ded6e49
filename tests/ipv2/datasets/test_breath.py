"""The displacement of a breath: smooth, inside the body, without folds or blur."""

import numpy as np
import pytest

from ipv2 import phantom
from ipv2.datasets import breath

SIZE = 128
MM = 400 / SIZE
SPACING = (5.0, MM, MM)


@pytest.fixture(scope="module")
def chest():
    patient = phantom.create_patient(5)
    position = phantom.slice_positions(patient, 3)
    slices = phantom.render(patient, phantom.create_breaths(5)[0], position, size=SIZE)
    return np.asarray(slices.hu), np.asarray(slices.body), np.asarray(slices.lung)


@pytest.fixture(scope="module")
def field(chest):
    return breath.displacement_mm(chest[0], SPACING, 0)


@pytest.mark.slow
def test_body_mask_is_the_body_without_the_table(chest):
    for hu, body in zip(chest[0], chest[1], strict=True):
        found = breath.body_mask(hu, SPACING[1:])
        # 3 %: the opening rounds corners by a pixel of the rim.
        assert np.sum(found ^ body) < 0.03 * body.sum()
    empty = np.full((32, 32), -1000.0, np.float32)
    assert not breath.body_mask(empty, (1.0, 1.0)).any()


def test_displacement_is_large_in_the_lung_and_zero_at_the_table(chest, field):
    hu, body, lung = chest
    size = np.linalg.norm(field, axis=-1)
    for index in range(len(hu)):
        assert np.percentile(size[index][lung[index]], 90) > 5
        assert size[index].max() < 16
        rows = np.nonzero(body[index].any(1))[0]
        below = np.arange(SIZE) > rows[-1] + 2
        assert size[index][below].max() < 0.5
        far = np.arange(SIZE) < rows[0] - 30 / MM
        assert size[index][far].max() == 0


def test_front_rises_and_back_does_not_move(chest, field):
    body = chest[1][1]
    rows = np.nonzero(body.any(1))[0]
    column = SIZE // 2
    assert abs(field[1, rows[0], column, 0]) == pytest.approx(5.0, rel=0.1)
    assert abs(field[1, rows[-1], column, 0]) < 0.3


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lung_mm", [9.0, 30.0])
def test_displacement_does_not_fold(chest, seed, lung_mm):
    params = breath.MotionParams(lung_mm=lung_mm)
    moved = breath.displacement_mm(chest[0][1:2], SPACING, seed, params)
    assert breath.jacobian(moved[0], SPACING[1:]).min() > 0.19
    assert np.abs(moved).max() > 3


def test_a_slice_s_field_does_not_depend_on_other_slices(chest, field):
    alone = breath.displacement_mm(chest[0][2:], SPACING, 0, first_mm=10.0)
    np.testing.assert_allclose(alone[0], field[2], atol=1e-4)


def test_warp_reads_where_the_field_points():
    row, column = np.mgrid[:40, :50].astype(np.float64)
    image = (300 * np.sin(row / 5) + 200 * np.cos(column / 6)).astype(np.float32)
    shift = np.zeros((40, 50, 2))
    shift[..., 0], shift[..., 1] = 1.5, -2.4  # mm: 3 rows down, 3 columns left
    moved = breath.warp(image, shift, (0.5, 0.8))
    np.testing.assert_allclose(moved[5:30, 8:45], image[8:33, 5:42], atol=0.5)
    half = breath.warp(image, shift / 6, (0.5, 0.8))
    expected = 300 * np.sin((row + 0.5) / 5) + 200 * np.cos((column - 0.5) / 6)
    np.testing.assert_allclose(half[5:30, 8:45], expected[5:30, 8:45], atol=0.5)
    still = breath.warp(image, np.zeros((40, 50, 2)), (0.5, 0.8))
    np.testing.assert_allclose(still, image, atol=0.01)


def test_warp_keeps_the_noise():
    rng = np.random.default_rng(0)
    # Like the noise of reconstructions: none near the highest frequencies.
    spectrum = np.fft.rfft2(rng.normal(size=(128, 128)))
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    window = frequency * (0.5 + 0.5 * np.cos(2 * np.pi * np.minimum(frequency, 0.5)))
    noise = np.fft.irfft2(spectrum * window, (128, 128)).astype(np.float32) * 500
    shift = np.broadcast_to(np.linspace(0, 6, 128)[:, None, None], (128, 128, 2))
    inside = np.s_[12:100, 12:100]
    kept = breath.warp(noise, shift, (1.0, 1.0))[inside].std() / noise[inside].std()
    assert 0.93 < kept < 1.05


def test_jacobian_of_a_linear_field():
    row, column = np.mgrid[:10, :12].astype(np.float64)
    field = np.stack([0.1 * row * 2 + 0.3 * column, -0.2 * column], axis=-1)
    expected = (1 + 0.1) * (1 - 0.2 / 1.0)
    np.testing.assert_allclose(breath.jacobian(field, (2.0, 1.0)), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: breath.MotionParams(chest_mm=-1), "chest_mm = -1"),
        (lambda: breath.MotionParams(lung_mm=90), "lung_mm = 90"),
        (lambda: breath.MotionParams(through_slices=40), "through_slices = 40"),
        (
            lambda: breath.displacement_mm(np.zeros((8, 8)), SPACING, 0),
            r"\(slices, rows, columns\)",
        ),
        (
            lambda: breath.displacement_mm(np.zeros((1, 8, 8)), (5.0, 0.0, 1.0), 0),
            "above 0 mm",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

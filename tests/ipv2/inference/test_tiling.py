"""Tiling: weights, seams, defaults and refusals."""

import numpy as np
import pytest
from scipy import ndimage

from common.errors import UserError
from ipv2.inference.tiling import (
    Tiling,
    count_tiles,
    create_tiling,
    cut,
    cut_axis,
    join,
)

RADIUS = 5


def blur(image):
    """A convolution of that radius, padded with edge pixels as the networks are."""
    return ndimage.uniform_filter(image, 2 * RADIUS + 1, mode="nearest")


def coarse(image):
    """Means of 4x4 blocks, blurred over 3x3 blocks, enlarged: radius 7, stride 4."""
    height, width = image.shape
    padded = np.pad(image, ((0, -height % 4), (0, -width % 4)), mode="edge")
    h, w = padded.shape
    blocks = padded.reshape(h // 4, 4, w // 4, 4).mean((1, 3))
    blocks = ndimage.uniform_filter(blocks, 3, mode="nearest")
    return np.kron(blocks, np.ones((4, 4)))[:height, :width]


def tiled(network, image, tiling):
    tiles = list(cut(image[..., None], tiling))
    assert len(tiles) == count_tiles(image.shape, tiling)
    assert len({tile.shape for tile in tiles}) == 1
    results = [network(tile[..., 0]).astype(np.float32) for tile in tiles]
    return join(results, image.shape, tiling)


def random_image(shape):
    return np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 64), (61, 90), (20, 75), (32, 33), (7, 5)])
@pytest.mark.parametrize("overlap", [-1, 14])
@pytest.mark.parametrize(
    ("network", "radius", "stride"), [(blur, RADIUS, 1), (coarse, 7, 4)]
)
def test_tiles_give_the_whole_image_s_result(network, radius, stride, shape, overlap):
    image = random_image(shape)
    tiling = create_tiling(tile=32, overlap=overlap, radius=radius, stride=stride)
    assert shape[1] <= 32 or count_tiles(shape, tiling) > 1
    # float32 HU of up to about 1000, and sums of weights.
    np.testing.assert_allclose(
        tiled(network, image, tiling), network(image), atol=1e-3, rtol=0
    )


def test_a_radius_that_is_too_small_changes_the_result():
    image = random_image((64, 64))
    tiling = create_tiling(tile=32, overlap=8, radius=RADIUS - 2, stride=1)
    assert np.abs(tiled(blur, image, tiling) - blur(image)).max() > 1


def test_tiles_that_differ_fade_into_each_other():
    tiling = create_tiling(tile=32, overlap=-1, radius=None, stride=1)
    levels = iter((0.0, 100.0))
    image = tiled(
        lambda tile: np.full_like(tile, next(levels)), np.zeros((32, 56)), tiling
    )
    steps = np.diff(image, axis=1)
    assert image[0, 0] == 0 and image[0, -1] == 100
    # 8 pixels of overlap: nine steps, none of them a seam.
    np.testing.assert_allclose(steps[:, 23:32], 100 / 9, atol=1e-3)


@pytest.mark.parametrize("length", range(1, 80, 7))
@pytest.mark.parametrize("tiling", [Tiling(16, 6, 3, 1), Tiling(16, 8, 2, 4)])
def test_weights_sum_to_one_and_origins_are_multiples_of_the_stride(length, tiling):
    axis = cut_axis(length, tiling)
    total = np.zeros(axis.extent)
    for origin, weight in zip(axis.origins, axis.weights, strict=True):
        assert origin % tiling.stride == 0
        total[origin : origin + axis.size] += weight
    assert length <= axis.extent < length + tiling.stride
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_images_are_cut_by_default_only_without_a_radius():
    assert create_tiling(tile=-1, overlap=-1, radius=7, stride=1) == Tiling()
    assert create_tiling(tile=-1, overlap=-1, radius=None, stride=8) == Tiling(
        256, 64, 0, 8
    )
    assert create_tiling(tile=0, overlap=-1, radius=None, stride=8) == Tiling()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 14, "overlap": -1}, r"^tile: got 14, accepted: at least 15"),
        ({"tile": -2, "overlap": -1}, "^tile: got -2, accepted: at least -1"),
        ({"tile": 32, "overlap": 13}, r"^overlap: got 13, accepted: 14 "),
        ({"tile": 32, "overlap": 32}, r"^overlap: got 32, .* to 31 "),
    ],
)
def test_tilings_that_would_leave_seams_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        create_tiling(radius=7, stride=1, **options)

import dataclasses
import io

import numpy as np
import PIL.Image
import pytest

from acq.classifier import Normalisation, Record
from acq.diagnosis.pictures import modes_png, samples_png
from tests.acq.made_up_diagnosis import make_diagnosis

LEFT, TOP, TILE = 100, 70, 96


def _record(channels):
    return Record(
        name="small",
        classes=5,
        image_size=8,
        normalisation=Normalisation(mean=(0.5,) * channels, std=(0.25,) * channels),
    )


def _pixels(png):
    return np.asarray(PIL.Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def _one_sample(channels=1, **changes):
    """A diagnosis with only the first of its examples."""
    diagnosis = make_diagnosis(channels=channels)
    examples = diagnosis.examples._replace(**changes)
    examples = type(examples)(*(values[:1] for values in examples))
    return dataclasses.replace(diagnosis, examples=examples)


def _samples(diagnosis, channels=1):
    return _pixels(samples_png(diagnosis, _record(channels)))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_sample_has_its_place_and_its_colours(channels):
    diagnosis = make_diagnosis(channels=channels)
    found = _samples(diagnosis, channels)
    # Five rows; four samples, each twice, with a gap after each and a pair's one more.
    assert found.shape == (TOP + 5 * (TILE + 6), LEFT + 4 * 2 * TILE + 3 * 6 + 10, 3)
    image = diagnosis.examples.images[6] * 0.25 + 0.5
    if channels != 3:
        image = np.mean(image, axis=-1, keepdims=True) * np.ones(3)
    y, x = TOP + TILE + 6, LEFT + 2 * (2 * TILE + 6) + 10
    # One pixel within each square of 12.
    examples = found[y + 6 : y + TILE : 12, x + 6 : x + TILE : 12]
    np.testing.assert_allclose(examples / 255, np.clip(image, 0, 1), atol=0.01)


def test_attention_is_brightest_where_it_is_and_markers_are_on_their_centres():
    attention = np.zeros((20, 4, 4))
    attention[:, 0, 3] = 1  # right, above
    diagnosis = _one_sample(
        images=np.zeros((20, 8, 8, 1)),
        attention=attention,
        requested=np.full((20, 2), (-0.5, 0.25)),
        achieved=np.full((20, 2), (0.0, 0.75)),
    )
    lit = _samples(diagnosis)[TOP : TOP + TILE, LEFT + TILE :]
    y, x = np.unravel_index(np.argmax(np.sum(lit[:40], axis=-1)), (40, TILE))
    assert abs(y - TILE / 8) < 13 and abs(x - 7 * TILE / 8) < 13
    cyan = (lit[..., 0] < 60) & (lit[..., 1] > 200) & (lit[..., 2] > 200)
    white = np.min(lit, axis=-1) > 200
    for marked, (at_x, at_y) in ((cyan, (-0.5, 0.25)), (white, (0, 0.75))):
        y, x = (np.mean(places) for places in np.nonzero(marked))
        assert x == pytest.approx((at_x + 1) / 2 * TILE, abs=1.5)
        assert y == pytest.approx((at_y + 1) / 2 * TILE, abs=1.5)


@pytest.mark.parametrize("recognised", [False, True])
def test_a_line_says_that_another_class_is_seen(recognised):
    diagnosis = _one_sample(recognised=np.full(20, recognised))
    below = _samples(diagnosis)[TOP + TILE :, LEFT:]
    red = (below[..., 0] > 180) & (below[..., 1] < 60)
    assert np.any(red) == (not recognised)


def test_large_images_are_drawn_smaller():
    diagnosis = _one_sample(images=np.zeros((20, 300, 300, 1)))
    assert _samples(diagnosis).shape == (TOP + 131, LEFT + 2 * 128, 3)


def test_images_that_are_not_finite_are_drawn_black():
    nan = np.full((20, 8, 8, 1), np.nan)
    diagnosis = _one_sample(images=nan, attention=np.full((20, 4, 4), np.nan))
    plain = _samples(diagnosis)[TOP : TOP + TILE, LEFT : LEFT + TILE]
    assert not np.any(plain)


def _modes(diagnosis, channels=1):
    return _pixels(modes_png(diagnosis, _record(channels)))


def test_attention_in_both_modes_is_side_by_side():
    left, right = np.zeros((20, 4, 4)), np.zeros((20, 4, 4))
    left[:, 0, 0] = right[:, 3, 3] = 1
    diagnosis = _one_sample(
        images=np.zeros((20, 8, 8, 1)), attention=left, train_attention=right
    )
    found = _modes(diagnosis)[TOP : TOP + TILE, LEFT:]
    for tile, place in ((found[:, :TILE], 0.125), (found[:, TILE:], 0.875)):
        y, x = np.unravel_index(np.argmax(np.sum(tile, axis=-1)), (TILE, TILE))
        assert abs(y - place * TILE) < 13 and abs(x - place * TILE) < 13


@pytest.mark.parametrize("size", [8, 300])
def test_the_cosine_of_both_modes_has_its_place_below_the_sample(size):
    diagnosis = _one_sample(images=np.zeros((20, size, size, 1)))
    found = _modes(diagnosis)
    side = min(-(-TILE // size) * size, 128)
    below = found[TOP + side :, LEFT:]
    assert np.any(below < 100) and len(below) >= 18
    assert np.all(below[-2:] == 255)  # nothing is cut off


def test_attention_that_is_not_finite_is_drawn():
    nan = np.full((20, 4, 4), np.nan)
    changes = {"train_attention": nan, "cosine": np.full(20, np.nan)}
    assert _modes(_one_sample(**changes)).shape[2] == 3

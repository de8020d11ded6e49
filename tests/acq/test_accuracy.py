import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from acq import accuracy
from acq.classifier import Normalisation
from acq.datasets.decoding import StoredImages, UnusableImage
from common.errors import UserError

NORMALISATION = Normalisation(mean=(0.2, 0.5), std=(0.5, 0.25))
IMAGES = np.random.default_rng(5).integers(0, 256, (23, 3, 3, 2)).astype(np.uint8)


def linear(variables, x):
    return x.reshape(len(x), -1) @ variables["kernel"]


KERNEL = np.random.default_rng(6).normal(size=(18, 5)).astype(np.float32)


def _expected(images):
    x = (images / 255.0 - np.array([0.2, 0.5])) / np.array([0.5, 0.25])
    return x.reshape(len(x), -1) @ KERNEL


def _assert_close(found, expected):
    # Sums of 18 products below 10 in float32: some 1e-6.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 6, 8, 300])
@pytest.mark.optimized
def test_logits_do_not_depend_on_the_batch_size(batch_size):
    found = accuracy.predict(
        linear,
        {"kernel": KERNEL},
        IMAGES,
        batch_size=batch_size,
        normalisation=NORMALISATION,
    )
    _assert_close(found, _expected(IMAGES))


def test_predict_compiles_once():
    traced = []

    def apply(variables, x):
        traced.append(x.shape)
        return linear(variables, x)

    for scale in (1.0, 2.0):
        accuracy.predict(
            apply,
            {"kernel": scale * KERNEL},
            IMAGES,
            batch_size=8,
            normalisation=NORMALISATION,
        )
    assert traced == [(2, 3, 3, 2)]


def test_top1_counts_images_whose_highest_logit_is_their_label_s():
    logits = _expected(IMAGES).astype(np.float32)
    labels = np.argmax(logits, -1)
    labels[::4] = (labels[::4] + 1) % 5
    found = accuracy.measure_accuracy(logits, labels)
    assert found == (17, 23) and found.top1 == pytest.approx(100 * 17 / 23)


def test_images_that_one_of_two_networks_has_right_are_counted():
    labels = np.array([0, 1, 1, 0, 1])
    # In turn: both right, only the first, only the second twice, no finite logit.
    first = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [np.nan, 1]], np.float32)
    second = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert accuracy.count_one_right(first, second, labels) == (1, 2)
    assert accuracy.count_one_right(second, first, labels) == (2, 1)


def test_fidelity_of_a_literal():
    teacher = np.log(np.asarray([[0.5, 0.5], [0.8, 0.2]], np.float32))
    student = np.log(np.asarray([[0.5, 0.5], [0.2, 0.8]], np.float32))
    found = accuracy.measure_fidelity(student + 3, teacher)
    # The second image's: 0.8 log 4 - 0.2 log 4, half of it over both.
    assert found.agreement == 50
    assert found.kl == pytest.approx(0.3 * np.log(4), rel=1e-5)
    same = accuracy.measure_fidelity(teacher, teacher)
    assert same.agreement == 100 and same.kl == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("who", ["student", "teacher", "both"])
def test_logits_that_are_not_finite_agree_with_nothing(who):
    fine = np.asarray([[1, 0], [0, 1], [3, 2]], np.float32)
    broken = fine.copy()
    broken[1, 0] = np.nan
    student, teacher = (
        fine if who not in (name, "both") else broken for name in ("student", "teacher")
    )
    found = accuracy.measure_fidelity(student, teacher)
    assert found.agreement == pytest.approx(200 / 3) and found.kl is None


def test_images_are_read_batch_by_batch_and_once():
    read = []

    class Recorded:
        def __len__(self):
            return len(IMAGES)

        def __getitem__(self, places):
            read.extend(places)
            return IMAGES[places]

    found = accuracy.predict(
        linear,
        {"kernel": KERNEL},
        Recorded(),
        batch_size=8,
        normalisation=NORMALISATION,
    )
    _assert_close(found, _expected(IMAGES))
    assert sorted(read) == list(range(23))


def test_a_logit_that_is_not_finite_is_no_class():
    def broken(variables, x):
        logits = linear(variables, x)
        first = jnp.arange(len(x))[:, None] == 0
        return jnp.where(first, variables["bad"], logits)

    for bad in (np.float32("nan"), np.float32("inf")):
        found = accuracy.predict(
            broken,
            {"kernel": KERNEL, "bad": bad},
            IMAGES[:8],
            batch_size=8,
            normalisation=NORMALISATION,
        )
        # Two images a device, of which the first is broken.
        classes = accuracy.classes_of(found)
        np.testing.assert_array_equal(classes[::2], [accuracy.NOT_FINITE] * 4)
        expected = np.argmax(_expected(IMAGES[:8]), -1)
        np.testing.assert_array_equal(classes[1::2], expected[1::2])


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        accuracy.predict(
            linear,
            {"kernel": KERNEL},
            IMAGES[:0],
            batch_size=8,
            normalisation=NORMALISATION,
        )


class Means(nn.Module):
    """A network whose logits are the channels' means, negated in training mode."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        means = jnp.mean(x, (1, 2))
        return (-means if train else means), x


def test_a_network_gives_its_logits_in_evaluation_mode():
    apply = accuracy.logits_of(Means(2))
    assert apply is accuracy.logits_of(Means(2))
    x = jnp.asarray(IMAGES, jnp.float32)
    np.testing.assert_allclose(apply({}, x), IMAGES.mean((1, 2)), rtol=1e-6)


def test_unusable_images_are_told_together_and_by_name():
    """Images may be damaged after the run has begun."""

    def read(place):
        if place in (4, 20):
            raise UnusableImage(f"val/{place}.jpg: not readable as an image")
        return IMAGES[place]

    with pytest.raises(UserError, match=r"2 of 23 .*\n  val/4\.jpg.*\n  val/20\.jpg"):
        accuracy.predict(
            linear,
            {"kernel": KERNEL},
            StoredImages(read, len(IMAGES), IMAGES.shape[1:]),
            batch_size=8,
            normalisation=NORMALISATION,
        )

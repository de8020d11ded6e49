import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from acq import evaluate
from acq.classifier import Normalisation
from acq.datasets.eval_data import EvalData

NORMALISATION = Normalisation(mean=(0.2, 0.5), std=(0.5, 0.25))
IMAGES = np.random.default_rng(5).integers(0, 256, (23, 3, 3, 2)).astype(np.uint8)


def linear(variables, x):
    return x.reshape(len(x), -1) @ variables["kernel"]


KERNEL = np.random.default_rng(6).normal(size=(18, 5)).astype(np.float32)


def _expected(images):
    x = (images / 255.0 - np.array([0.2, 0.5])) / np.array([0.5, 0.25])
    return np.argmax(x.reshape(len(x), -1) @ KERNEL, -1)


@pytest.mark.parametrize("batch_size", [1, 6, 8, 300])
def test_classes_do_not_depend_on_the_batch_size(batch_size):
    found = evaluate.predict(
        linear,
        {"kernel": KERNEL},
        IMAGES,
        batch_size=batch_size,
        normalisation=NORMALISATION,
    )
    np.testing.assert_array_equal(found, _expected(IMAGES))


def test_top1_counts_all_images_once_and_compiles_once():
    labels = _expected(IMAGES).astype(np.int32)
    labels[::4] = (labels[::4] + 1) % 5
    data = EvalData(name="few", images=IMAGES, labels=labels, classes=5)
    traced = []

    def apply(variables, x):
        traced.append(x.shape)
        return linear(variables, x)

    for scale in (1.0, 2.0):
        found = evaluate.top1(
            apply,
            {"kernel": scale * KERNEL},
            data,
            batch_size=8,
            normalisation=NORMALISATION,
        )
        assert found == (17, 23) and found.top1 == pytest.approx(100 * 17 / 23)
    assert traced == [(2, 3, 3, 2)]


def test_images_are_read_batch_by_batch_and_once():
    read = []

    class Recorded:
        def __len__(self):
            return len(IMAGES)

        def __getitem__(self, places):
            read.extend(places)
            return IMAGES[places]

    found = evaluate.predict(
        linear,
        {"kernel": KERNEL},
        Recorded(),
        batch_size=8,
        normalisation=NORMALISATION,
    )
    np.testing.assert_array_equal(found, _expected(IMAGES))
    assert sorted(read) == list(range(23))


def test_a_logit_that_is_not_finite_is_no_class():
    def broken(variables, x):
        logits = linear(variables, x)
        first = jnp.arange(len(x))[:, None] == 0
        return jnp.where(first, variables["bad"], logits)

    for bad in (np.float32("nan"), np.float32("inf")):
        found = evaluate.predict(
            broken,
            {"kernel": KERNEL, "bad": bad},
            IMAGES[:8],
            batch_size=8,
            normalisation=NORMALISATION,
        )
        # Two images a device, of which the first is broken.
        np.testing.assert_array_equal(found[::2], [evaluate.NOT_FINITE] * 4)
        np.testing.assert_array_equal(found[1::2], _expected(IMAGES[:8])[1::2])


def test_no_images_are_no_classes():
    found = evaluate.predict(
        linear,
        {"kernel": KERNEL},
        IMAGES[:0],
        batch_size=8,
        normalisation=NORMALISATION,
    )
    assert found.shape == (0,)


class Means(nn.Module):
    """Its logits are the channels' means, negated in training mode."""

    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        means = jnp.mean(x, (1, 2))
        return (-means if train else means), x


def test_a_network_gives_its_logits_in_evaluation_mode():
    apply = evaluate.logits_of(Means(2))
    assert apply is evaluate.logits_of(Means(2))
    x = jnp.asarray(IMAGES, jnp.float32)
    np.testing.assert_allclose(apply({}, x), IMAGES.mean((1, 2)), rtol=1e-6)

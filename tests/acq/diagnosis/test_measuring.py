import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from acq.diagnosis.complaints import complaints
from acq.diagnosis.measuring import measure_samples
from acq.kernels.attention import attention_center
from acq.layers.float import FloatLayers
from acq.samples.observation import observe
from acq.samples.shifts import shift_images
from acq.training import losses
from tests.acq.tiny_generator import CLASSES, PARTS, create_variables, with_zeros

FIRST, BATCH, BATCHES = 100, 16, 3


@pytest.fixture(scope="module")
def variables():
    return create_variables()


def _diagnose(params, teacher, **changes):
    given = {"first": FIRST, "count": 40, "batch_size": BATCH} | changes
    return measure_samples(PARTS, params, teacher, **given)


@pytest.fixture(scope="module")
def diagnosis(variables):
    return _diagnose(*variables)


@pytest.fixture(scope="module")
def one_device(variables):
    """Results of one device for the joined batches, per sample and per batch."""
    sampling = dataclasses.replace(PARTS.sampling, paired=True)
    generator = PARTS.generator.clone(axis_name=None)
    teacher = PARTS.teacher.clone(layers=FloatLayers())
    params, teacher_variables = variables

    @jax.jit
    def see(draw):
        conditions = sampling.draw(draw)
        images = generator.apply({"params": params}, conditions)
        view, train_view = (
            observe(teacher, teacher_variables, images, conditions.label, train=train)
            for train in (False, True)
        )
        samples = {
            "label": conditions.label,
            "requested": conditions.center,
            "images": images,
            "attention": view.attention,
            "train_attention": train_view.attention,
            "achieved": attention_center(view.attention, 2.0),
            "recognised": jnp.argmax(view.logits, -1) == conditions.label,
            "cosine": losses.attention_cosine(view.attention, train_view.attention),
            "logits": view.logits,
        }
        moved = shift_images(images, conditions.shift, PARTS.black)
        running = teacher_variables["batch_stats"]
        return samples, {
            f"{mode}_{form}": losses.statistics_loss(
                observe(
                    teacher, teacher_variables, moved, conditions.label, train=train
                ).statistics,
                running,
                form,
            )
            for mode, train in (("eval", False), ("train", True))
            for form in ("squared", "relative")
        }

    batches = [
        jax.device_get(see(jnp.arange(start, start + BATCH, dtype=jnp.uint32)))
        for start in range(FIRST, FIRST + BATCHES * BATCH, BATCH)
    ]
    samples, statistics = zip(*batches, strict=True)
    return (
        {name: np.concatenate([x[name] for x in samples]) for name in samples[0]},
        {name: np.mean([x[name] for x in statistics]) for name in statistics[0]},
    )


@pytest.mark.slow
def test_measures_are_those_of_one_device(diagnosis, one_device):
    samples, statistics = one_device
    label = samples["label"]
    assert diagnosis.count == BATCHES * BATCH  # rounded up to whole batches
    near = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_array_equal(diagnosis.requested, samples["requested"])
    np.testing.assert_allclose(diagnosis.achieved, samples["achieved"], **near)
    np.testing.assert_array_equal(diagnosis.drawn, np.bincount(label, minlength=3))
    recognised = np.bincount(label[samples["recognised"]], minlength=3)
    np.testing.assert_array_equal(diagnosis.recognised, recognised)
    assert diagnosis.attention_cosine == pytest.approx(np.mean(samples["cosine"]))
    entropies = scipy.stats.entropy(
        scipy.special.softmax(samples["logits"], -1), axis=-1
    )
    assert diagnosis.teacher_entropy == pytest.approx(np.mean(entropies), rel=1e-4)
    assert diagnosis.finite == 1
    assert diagnosis.statistics == pytest.approx(statistics, rel=1e-4)
    assert len(set(statistics.values())) == 4


@pytest.mark.slow
def test_variety_in_pair_is_that_of_neighbours(diagnosis, one_device):
    images = one_device[0]["images"].reshape(-1, 2, 8 * 8 * 2)
    squared = np.mean((images[:, 0] - images[:, 1]) ** 2)
    assert diagnosis.variety.in_pair == pytest.approx(np.sqrt(squared / 2), rel=1e-4)


@pytest.mark.slow
def test_shown_are_the_first_samples_of_every_class(diagnosis, one_device):
    examples, label = diagnosis.examples, one_device[0]["label"]
    places = np.concatenate([np.flatnonzero(label == k)[:4] for k in range(CLASSES)])
    assert len(places) > 8  # or the test shows little
    for name, found in examples._asdict().items():
        expected = one_device[0][name][places]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_scalars_are_the_measures_by_name(diagnosis):
    scalars = diagnosis.scalars()
    assert scalars["samples/center_r2"] == diagnosis.center_r2()
    both = [scalars[f"samples/center_r2_{axis}"] for axis in "xy"]
    assert min(both) <= scalars["samples/center_r2"] <= max(both)
    assert scalars["samples/bns_train_relative"] > 0
    share = np.sum(diagnosis.recognised) / 48
    assert scalars["samples/recognised"] == pytest.approx(share)
    assert all(type(value) is float for value in scalars.values())


@pytest.mark.slow
def test_other_numbers_are_other_samples(variables, diagnosis):
    other = _diagnose(*variables, first=FIRST + BATCHES * BATCH, count=BATCH)
    assert not np.intersect1d(other.requested, diagnosis.requested).size


def _complained(diagnosis, words):
    return sum(words in text for text in complaints(diagnosis, PARTS.loss)) == 1


@pytest.mark.slow
def test_a_generator_of_one_image_has_no_variety(variables):
    params, teacher = variables
    found = _diagnose(with_zeros(params, "conv3"), teacher)
    assert found.variety.overall == found.variety.in_pair == 0
    np.testing.assert_array_equal(found.variety.in_class, 0)
    assert _complained(found, "All samples are nearly equal")


@pytest.mark.slow
def test_a_generator_of_one_image_a_class_has_variety_between_classes(variables):
    params, teacher = variables
    blind = with_zeros(params, "dense")
    # The heat map of the centre is the last channel that conv1 and conv2 see.
    for name in ("conv1", "conv2"):
        kernel = blind[name]["kernel"].at[:, :, -1].set(0)
        blind[name] = blind[name] | {"kernel": kernel}
    found = _diagnose(blind, teacher)
    assert found.variety.overall > 0.3 and found.variety.in_pair == 0
    np.testing.assert_array_equal(found.variety.in_class, 0)
    assert _complained(found, "Samples of classes 0, 1 and 2 are nearly equal")


@pytest.mark.slow
def test_a_generator_that_ignores_its_latent_varies_with_the_centre(variables):
    params, teacher = variables
    found = _diagnose(with_zeros(params, "dense"), teacher)
    assert np.min(found.variety.in_class) > 0.1 and found.variety.in_pair == 0
    assert _complained(found, "The generator ignores its latent")


@pytest.mark.slow
def test_samples_that_are_not_finite_are_counted_and_leave_scalars_out(variables):
    params, teacher = variables
    broken = params | {"norm1_scale": params["norm1_scale"].at[0].set(np.nan)}
    found = _diagnose(broken, teacher)
    scalars = found.scalars()
    assert scalars["samples/finite"] == found.finite == 0
    assert scalars["samples/recognised"] == 0
    assert "samples/center_r2" not in scalars and "samples/variety" not in scalars


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"first": 3},
        {"first": -2},
        {"batch_size": 7},
        {"batch_size": 0},
        {"count": 0},
        {"first": 2**32 - 16, "count": 17},
    ],
)
def test_numbers_that_are_no_pairs_are_refused(variables, changes):
    with pytest.raises(ValueError, match="accepted: even numbers"):
        _diagnose(*variables, **changes)

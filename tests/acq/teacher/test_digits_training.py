import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acq.classifier import Normalisation
from acq.datasets.digits import Digits, Split
from acq.layers.float import FloatLayers
from acq.teacher import digits_training as training
from acq.teacher.train_step import create_state, make_train_step
from common import loop
from common.devices import AXIS, pmap_step, refuse_divergence, replicate, shard_batch
from common.errors import Interrupted, UserError
from tests.acq.odd_networks import Small


def _settings(**changes):
    digits = {
        "width": 2,
        "train_steps": 4,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "shift": 1,
    }
    return training.DigitsSettings(**{**digits, **changes})


def _prepare(workdir, **changes):
    return training.prepare_teacher(_settings(**changes), workdir, seed=3)


def _split(count, seed):
    """Returns stripes in ten directions, easy to learn, in the digits' shape."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.int32)
    rows, columns = np.mgrid[:28, :28]
    angles = labels[:, None, None] * np.pi / 10
    waves = np.sin(0.8 * (rows * np.cos(angles) + columns * np.sin(angles)))
    return Split((127 + 120 * waves).astype(np.uint8)[..., None], labels)


@pytest.fixture
def few_digits(monkeypatch):
    digits = Digits(_split(40, 0), _split(12, 1))
    monkeypatch.setattr(training, "load_digits", lambda: digits)
    # It compiles in a tenth of the time.
    monkeypatch.setattr(training, "NETWORK", "tests.acq.odd_networks:Small")


def _leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_shifts_move_whole_images_and_depend_on_the_draw_alone():
    image = np.arange(1, 26, dtype=np.uint8).reshape(5, 5, 1)
    shift = training.make_shift(1, seed=0)

    def moved(draw):
        return shift({"image": image, "label": 3, "draw": np.uint32(draw)})

    padded = np.pad(image[..., 0], 1)
    wanted = {
        padded[i : i + 5, j : j + 5].tobytes() for i in range(3) for j in range(3)
    }
    found = [moved(draw) for draw in range(64)]
    assert {record["image"].tobytes() for record in found} == wanted
    assert all(record["label"] == 3 for record in found)
    np.testing.assert_array_equal(moved(7)["image"], found[7]["image"])
    still = training.make_shift(0, seed=0)
    record = still({"image": image, "label": 3, "draw": np.uint32(1)})
    np.testing.assert_array_equal(record["image"], image)


def test_normalisation_is_that_of_the_training_images():
    found = training.measure_normalisation(_split(10, 2))
    x = (_split(10, 2).images / 255 - found.mean) / found.std
    assert abs(x.mean()) < 1e-3 and abs(x.std() - 1) < 1e-3


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_teacher(
    few_digits, tmp_path, monkeypatch
):
    whole = _prepare(tmp_path / "whole")
    stops = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_stop_now", lambda stop, step: next(stops))
        with pytest.raises(Interrupted, match="after step 2 of 4"):
            _prepare(tmp_path / "killed")
    with pytest.raises(UserError, match=r"config\.digits\.learning_rate: the run has"):
        _prepare(tmp_path / "killed", learning_rate=0.5)
    again = _prepare(tmp_path / "killed")
    for one, other in zip(
        _leaves(whole.variables), _leaves(again.variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)

    manifest = json.loads((tmp_path / "whole/teacher/manifest.json").read_text())
    assert whole.record.sha256 == again.record.sha256 == manifest["sha256"]
    assert whole.record.options == {"width": 2} and whole.record.channels == 1
    assert 0 <= manifest["top1"] <= 100
    assert whole.network == Small(FloatLayers(), 10, width=2)

    # What is there is loaded, and only by those who ask for it.
    monkeypatch.setattr(training, "load_digits", None)
    loaded = _prepare(tmp_path / "whole")
    assert loaded.record == whole.record
    with pytest.raises(UserError, match=r"trained with .*'train_steps': 4.*asks for"):
        _prepare(tmp_path / "whole", train_steps=5)


@pytest.mark.slow
def test_step_on_devices_is_the_step_on_the_joined_batch():
    network = Small(FloatLayers(), 10)
    optimizer = optax.sgd(0.1)
    normalisation = Normalisation(mean=(0.5,), std=(0.4,))
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))
    split = _split(16, 4)
    batch = {
        "image": split.images[:, :12, :12],
        "label": split.labels,
    }
    step = pmap_step(
        make_train_step(
            network.clone(layers=FloatLayers(axis_name=AXIS)),
            optimizer,
            normalisation,
        )
    )
    state = replicate(create_state(variables, optimizer))
    one = jax.vmap(
        make_train_step(network, optimizer, normalisation),
        in_axes=(None, 0),
        axis_name=AXIS,
    )
    joined = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], batch)
    wanted, wanted_metrics = jax.jit(one)(create_state(variables, optimizer), joined)
    state, metrics = step(state, shard_batch(batch))
    refuse_divergence(state)
    for found, expected in zip(_leaves(state), _leaves(wanted), strict=True):
        np.testing.assert_allclose(found, expected[0], atol=2e-5)
    assert float(metrics["loss"]) == pytest.approx(float(wanted_metrics["loss"][0]))


@pytest.mark.slow
@pytest.mark.long
def test_the_digits_are_learnt(tmp_path):
    _prepare(tmp_path, width=8, train_steps=200, batch_size=32)
    manifest = json.loads((tmp_path / "teacher/manifest.json").read_text())
    assert manifest["top1"] > 90

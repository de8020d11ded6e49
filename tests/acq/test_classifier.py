import json

import jax.numpy as jnp
import numpy as np
import pytest

from acq.classifier import Classifier, Normalisation, Record
from acq.layers.float import FloatLayers
from acq.models import create_network
from common.errors import UserError

RECORD = Record(
    name="resnet8",
    options={"shortcut": "projection"},
    classes=10,
    image_size=32,
    normalisation=Normalisation(mean=(0.5, 0.25), std=(0.5, 0.1)),
    source="weights.npz",
    sha256="12",
)


def test_normalise_is_undone():
    images = jnp.linspace(0, 1, 24).reshape(2, 2, 3, 2)
    x = RECORD.normalisation.normalise(images)
    np.testing.assert_allclose(x[..., 1], (images[..., 1] - 0.25) / 0.1, rtol=1e-5)
    np.testing.assert_allclose(
        RECORD.normalisation.denormalise(x), images, atol=1e-6, rtol=0
    )


def test_normalise_refuses_other_channels():
    with pytest.raises(ValueError, match="3 channels, but the classifier takes 2"):
        RECORD.normalisation.normalise(jnp.zeros((1, 2, 2, 3)))


@pytest.mark.parametrize("std", [(0.5,), (0.5, 0.0)])
def test_normalisation_that_cannot_be_is_refused(std):
    with pytest.raises(ValueError, match="one number per channel, std above 0"):
        Normalisation(mean=(0.5, 0.5), std=std)


def test_record_survives_json():
    assert Record.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD
    assert RECORD.image_shape(5) == (5, 32, 32, 2)


def test_black_is_what_the_network_takes_of_it():
    black = RECORD.normalisation.normalise(jnp.zeros((1, 2)))
    np.testing.assert_allclose(RECORD.black, black[0], rtol=1e-6)


def test_the_input_s_range_is_that_of_black_and_white():
    ends = RECORD.normalisation.normalise(jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    found = RECORD.input_range
    np.testing.assert_allclose(found, (ends.min(), ends.max()), rtol=1e-6)


@pytest.mark.parametrize(
    "change", [{"normalisation": None}, {"colour": 1}, {"normalisation": {"mean": []}}]
)
def test_record_of_another_version_is_refused(change):
    with pytest.raises(UserError, match="not the record of a classifier"):
        Record.from_json({**RECORD.to_json(), **change})


def test_other_layers_make_the_same_network():
    network = create_network("resnet8", FloatLayers(), 10, shortcut="projection")
    classifier = Classifier(network=network, variables={}, record=RECORD)
    other = classifier.with_layers(FloatLayers(axis_name="devices"))
    assert other.layers == FloatLayers(axis_name="devices")
    assert (other.shortcut, other.depth) == ("projection", 8)

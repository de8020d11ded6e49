"""Networks held at their BatchNorm statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.layers.float import FloatLayers
from acq.layers.held import HeldLayers
from tests.acq import foreign_state_dicts as theirs
from tests.acq.own_network import PlainNet

SHAPE = (64, 8, 8, 3)


@pytest.fixture(scope="module")
def held():
    """Returns the held network, variables, images, offsets, logits, and the pass."""
    network = PlainNet(HeldLayers(), 3)
    variables = theirs.random_variables(PlainNet(FloatLayers(), 3))
    variables = jax.tree.map(jnp.asarray, variables)
    images = jax.random.normal(jax.random.key(1), SHAPE)

    @jax.jit
    def hold(variables, images):
        rngs = {"gaussian": jax.random.key(0)}
        return network.apply(variables, images, mutable=["offsets"], rngs=rngs)

    (logits, _), offsets = hold(variables, images)
    return network, variables, images, offsets, logits, hold


def test_outputs_have_the_statistics_that_the_layers_state(held):
    network, variables, images, offsets, *_ = held
    _, seen = jax.jit(
        lambda v, x: network.apply(
            v, x, capture_intermediates=lambda m, _: (m.name or "").startswith("bn")
        )
    )({**variables, **offsets}, images)
    for name in ("bn0", "bn1", "bn2"):
        values = np.asarray(seen["intermediates"][name]["__call__"][0])
        params = variables["params"][name]
        count = values.size // values.shape[-1]
        # Five standard errors of mean and deviation of `count` normal draws.
        error = 5 * np.asarray(params["scale"]) / np.sqrt(count)
        assert (np.abs(values.mean((0, 1, 2)) - params["bias"]) < error).all()
        assert (np.abs(values.std((0, 1, 2)) - params["scale"]) < error).all()


def test_without_a_change_the_logits_are_those_of_the_drawing_pass(held):
    network, variables, images, offsets, logits, _ = held
    again = jax.jit(network.apply)({**variables, **offsets}, images)[0]
    # y - x + x in float32.
    np.testing.assert_allclose(again, logits, rtol=1e-5)


def test_a_change_has_its_effect_and_images_have_none(held):
    network, variables, images, offsets, logits, hold = held
    apply = jax.jit(network.apply)
    params = {**variables["params"]}
    kernel = params["conv1"]["kernel"]
    params["conv1"] = {"kernel": kernel.at[0, 0, 0, 0].add(0.5)}
    moved = apply({**variables, "params": params, **offsets}, images)[0]
    assert np.abs(np.asarray(moved - logits)).max() > 1e-3
    params["conv1"] = {"kernel": kernel}
    bias = {**params["head"], "bias": params["head"]["bias"] + 1}
    moved = apply({**variables, "params": {**params, "head": bias}, **offsets}, images)
    np.testing.assert_allclose(moved[0], logits + 1, rtol=1e-5)

    other = hold(variables, 3 * images + 1)[0][0]
    np.testing.assert_allclose(other, logits, rtol=1e-4)

"""U-Net and NAFNet with batch normalisation."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.devices import AXIS
from ipv2.models import create_model
from ipv2.training.denoiser import Regression
from ipv2.training.losses import create_loss
from ipv2.training.train_step import Examples, create_state, make_train_step
from tests.ipv2.models.small import create_small, random_image, random_variables

NAMES = ("unet", "nafnet")
# A halving fewer: its gradient compiles in half the time.
FLAT = {"unet": {"levels": 1}, "nafnet": {}}


def names_of(tree):
    return set(flax.traverse_util.flatten_dict(tree, sep="/"))


def shapes_of(name, **attributes):
    model = create_small(name, **attributes)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def test_a_unet_normalises_between_convolution_and_rectifier():
    with_norm = shapes_of("unet", norm="batch")
    pair = names_of(with_norm["params"]["down0"])
    assert pair == {
        *("conv1/kernel", "norm1/scale", "norm1/bias"),
        *("conv2/kernel", "norm2/scale", "norm2/bias"),
    }
    assert len(names_of(with_norm["batch_stats"])) == 2 * 2 * 5


def test_a_nafnet_has_batch_normalisation_where_it_has_that_of_channels():
    published, with_norm = shapes_of("nafnet"), shapes_of("nafnet", norm="batch")
    assert names_of(published["params"]) == names_of(with_norm["params"])
    assert "batch_stats" not in published
    assert len(names_of(with_norm["batch_stats"])) == 2 * 2 * 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("unet", "norm is 'none' or 'batch', got 'layer'"), ("nafnet", "'channel' or 'b")],
)
def test_another_norm_is_refused(name, said):
    model = create_model(name, norm="layer")
    with pytest.raises(ValueError, match=said):
        model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["unet", pytest.param("nafnet", marks=pytest.mark.long)]
)
def test_a_training_step_changes_the_statistics_and_every_parameter(name):
    model = create_small(name, norm="batch", axis_name=AXIS, **FLAT[name])
    denoiser = Regression(model=model, loss=create_loss("mse"))
    x = random_image(1, 4, 8, 8, 1)
    variables = random_variables(model.clone(axis_name=None), x[0])
    optimizer = optax.sgd(0.1)
    step = jax.vmap(make_train_step(denoiser, optimizer), axis_name=AXIS)
    state = jax.tree.map(lambda a: a[None], create_state(variables, optimizer))
    after, _ = step(
        state, Examples(x, 0 * x, jax.random.split(jax.random.key(0), (1, 4)))
    )
    for part in ("params", "collections"):
        before = flax.traverse_util.flatten_dict(getattr(state, part), sep="/")
        for path, leaf in flax.traverse_util.flatten_dict(
            getattr(after, part), sep="/"
        ).items():
            assert np.all(np.isfinite(leaf)) and np.any(leaf != before[path]), path


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_remat_changes_nothing(name):
    x = random_image(2, 8, 8, 1)
    plain, recomputed = (
        create_small(name, norm="batch", remat=remat) for remat in (False, True)
    )
    variables = random_variables(plain, x)
    results = [
        jax.jit(lambda v, x, m=m: m.apply(v, x, train=True, mutable=["batch_stats"]))(
            variables, x
        )
        for m in (plain, recomputed)
    ]
    # The same sums, in an order that the compiler chooses.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results
    )

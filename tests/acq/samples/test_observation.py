import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.kernels.attention import attention_map
from acq.layers.float import FloatLayers, perturbed
from acq.samples.observation import View, grad_cam, observe
from common.errors import UserError
from tests.acq.models.small import create_small, random_variables
from tests.acq.own_network import PlainNet

CLASSES, COUNT = 5, 4


class DeepHead(nn.Module):
    """Two dense layers over all positions, so that Grad-CAM is no weighted sum."""

    layers: FloatLayers
    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        x = make.conv(3, 3, strides=2, padding=1, name="conv")(x)
        x = make.batch_norm(name="bn")(x, train)
        x = perturbed(self, make.activation("relu", name="act")(x))
        hidden = make.dense(6, name="dense")(x.reshape(len(x), -1))
        hidden = make.activation("relu", name="act_dense")(hidden)
        return make.dense(self.classes, name="head")(hidden), x


NETWORKS = {
    "resnet": create_small("cifar", classes=CLASSES),
    "deep_head": DeepHead(FloatLayers(), CLASSES),
    "plain": PlainNet(FloatLayers(), CLASSES, width=4),
}


def images():
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.normal(size=(COUNT, 8, 8, 3)), jnp.float32)


def labels():
    return jnp.arange(COUNT, dtype=jnp.int32)


@functools.cache
def variables_of(name):
    return random_variables(NETWORKS[name], images())


@functools.cache
def view_of(name, *, train, attention="energy"):
    observed = jax.jit(
        lambda variables, x: observe(
            NETWORKS[name], variables, x, labels(), train=train, attention=attention
        )
    )
    return observed(variables_of(name), images())


@functools.cache
def applied(name, *, train):
    """(logits, features), and all that training mode changes."""
    apply = jax.jit(
        lambda variables, x: NETWORKS[name].apply(
            variables, x, train=train, mutable=["batch_stats", "bn_inputs"]
        )
    )
    return apply(variables_of(name), images())


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


def shares(cam):
    """The positive part, and a thousandth of the map's mean size, of their sum."""
    lit = np.maximum(cam, 0) + 1e-3 * np.abs(cam).mean((1, 2), keepdims=True)
    return lit / lit.sum((1, 2), keepdims=True)


def assert_is_map(attention):
    assert np.min(attention) >= 0
    np.testing.assert_allclose(np.sum(attention, axis=(1, 2)), 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("attention", ["energy", "grad_cam"])
def test_a_view_is_what_the_network_gives_in_that_mode(train, attention):
    view = view_of("resnet", train=train, attention=attention)
    (logits, features), changed = applied("resnet", train=train)
    assert isinstance(view, View)
    assert_close(view.logits, logits)
    assert_close(view.statistics, changed["bn_inputs"])
    assert_is_map(view.attention)
    if attention == "energy":
        assert_close(view.attention, attention_map(features))


@pytest.mark.slow
def test_modes_differ_from_the_second_layer_on():
    view, train_view = (view_of("resnet", train=train) for train in (False, True))
    assert np.abs(view.logits - train_view.logits).max() > 0.1
    assert np.abs(view.attention - train_view.attention).max() > 0.01
    # The first layer sees the same images in either mode; the next ones do not.
    first = [v.statistics["bn1"]["mean"] for v in (view, train_view)]
    np.testing.assert_allclose(*first, rtol=1e-5)
    later = [v.statistics["layer3_0"]["bn2"]["mean"] for v in (view, train_view)]
    assert np.abs(later[0] - later[1]).max() > 0.01


def test_class_activation_map_is_grad_cam_of_a_pooled_head():
    (_, features), _ = applied("resnet", train=False)
    kernel = np.asarray(variables_of("resnet")["params"]["linear"]["kernel"])
    cam = np.einsum("nhwc,cn->nhw", features, kernel[:, labels()])
    assert (cam.max((1, 2)) > 0).sum() >= 2
    found = view_of("resnet", train=False, attention="grad_cam").attention
    np.testing.assert_allclose(found, shares(cam), rtol=1e-4, atol=1e-5)


def test_grad_cam_is_that_of_finite_differences_through_the_head():
    """In float64 and without the network: only its head's parameters."""
    params = jax.tree.map(np.float64, variables_of("deep_head")["params"])
    (logits, features), _ = applied("deep_head", train=False)
    features = np.asarray(features, np.float64)

    def head(flat):
        hidden = flat @ params["dense"]["kernel"] + params["dense"]["bias"]
        return np.maximum(hidden, 0) @ params["head"]["kernel"]

    flat = features.reshape(COUNT, -1)
    np.testing.assert_allclose(
        head(flat) + params["head"]["bias"], logits, rtol=1e-4, atol=1e-5
    )
    gradient = np.empty_like(flat)
    for n, label in enumerate(labels()):
        steps = 1e-6 * np.eye(flat.shape[1])
        gradient[n] = (head(flat[n] + steps) - head(flat[n] - steps))[:, label] / 2e-6
    weight = gradient.reshape(features.shape).mean((1, 2), keepdims=True)
    cam = (weight * features).sum(-1)
    assert (cam.max((1, 2)) > 0).sum() >= 2
    found = view_of("deep_head", train=False, attention="grad_cam").attention
    np.testing.assert_allclose(found, shares(cam), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sign", [0.0, -1.0])
def test_a_grad_cam_that_is_zero_everywhere_is_uniform_with_gradient_zero(sign):
    features = jnp.asarray(np.ones((2, 3, 4, 5), "f"))
    gradient = jnp.asarray(np.full((2, 3, 4, 5), sign, "f"))

    @jax.jit
    def map_and_gradient(features):
        back = jax.grad(lambda f: jnp.sum(grad_cam(f, gradient) ** 2))(features)
        return grad_cam(features, gradient), back

    found, back = map_and_gradient(features)
    np.testing.assert_allclose(found, 1 / 12, rtol=1e-6)
    np.testing.assert_array_equal(back, 0)


def test_a_grad_cam_hardly_above_zero_has_a_bounded_gradient():
    values = np.full((1, 2, 2, 1), -1.0, "f")
    values[0, 0, 0] = 1e-9
    features, gradient = jnp.asarray(values), jnp.asarray(np.ones((1, 2, 2, 1), "f"))
    weights = jnp.asarray([[[1.0, 0.0], [0.0, 0.0]]])
    back = jax.jit(jax.grad(lambda f: jnp.sum(weights * grad_cam(f, gradient))))(
        features
    )
    assert 100 < np.abs(back).max() < 1000


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("attention", ["energy", "grad_cam"])
def test_attention_is_differentiable_by_the_images(train, attention):
    """Of grad_cam that is a second derivative: its weights depend on the images."""
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(COUNT, 4, 4)), jnp.float32)
    direction = rng.normal(size=(COUNT, 8, 8, 3)).astype(np.float32)
    variables = variables_of("deep_head")

    @jax.jit
    def value_and_grad(x):
        def value(x):
            view = observe(
                NETWORKS["deep_head"],
                variables,
                x,
                labels(),
                train=train,
                attention=attention,
            )
            return jnp.sum(weights * view.attention)

        return jax.value_and_grad(value)(x)

    x = images()
    _, gradient = value_and_grad(x)
    assert np.isfinite(gradient).all()
    # No sample is without a gradient, but for a Grad-CAM that is 0 everywhere.
    seen = np.abs(gradient).max((1, 2, 3)) > 1e-5
    assert seen.sum() >= (COUNT if attention == "energy" else 2)
    step = 2e-3
    ahead, behind = (value_and_grad(x + s * direction)[0] for s in (step, -step))
    # Central differences, in float32 and across a few bends of ReLU.
    np.testing.assert_allclose(
        np.vdot(gradient, direction), (ahead - behind) / (2 * step), rtol=0.03
    )


def test_networks_that_do_not_show_their_features_have_no_grad_cam():
    network, x = NETWORKS["plain"], images()
    with pytest.raises(UserError, match=r"'grad_cam', but PlainNet does not call"):
        jax.eval_shape(
            lambda variables: observe(
                network, variables, x, labels(), train=False, attention="grad_cam"
            ),
            variables_of("plain"),
        )


def test_perturbations_are_no_variables_of_a_network():
    network, x = NETWORKS["resnet"], images()
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    assert set(shapes) == {"params", "batch_stats"}

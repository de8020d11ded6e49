import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.layers.float import FloatLayers
from acq.models import (
    NETWORKS,
    CifarResNet,
    ResNet,
    cifar_resnet,
    create_network,
    find_network,
)
from common.errors import UserError
from tests.acq.models.small import (
    create_small,
    random_images,
    random_variables,
)
from tests.acq.own_network import PlainNet


def _shapes(name, size=None, classes=None, **options):
    known = NETWORKS[name]
    network = create_network(name, FloatLayers(), classes or known.classes, **options)
    size = size or known.image_size
    x = jax.ShapeDtypeStruct((2, size, size, known.channels), jnp.float32)
    outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    return variables, outputs


def _count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "count", "features"),
    [
        ("resnet20", {}, 269_722, (8, 8, 64)),
        ("resnet20", {"shortcut": "projection"}, 272_474, (8, 8, 64)),
        ("resnet18", {}, 11_689_512, (7, 7, 512)),
        ("resnet34", {}, 21_797_672, (7, 7, 512)),
        ("resnet50", {}, 25_557_032, (7, 7, 2048)),
        ("mobilenet_v2", {}, 3_504_872, (7, 7, 1280)),
        ("efficientnet_lite0", {}, 4_652_008, (7, 7, 1280)),
        ("vgg16_bn", {}, 138_365_992, (14, 14, 512)),
    ],
)
def test_published_parameter_count_and_shapes(name, options, count, features):
    variables, (logits, last) = _shapes(name, **options)
    assert _count(variables["params"]) == count
    assert set(variables) == {"params", "batch_stats"}
    assert logits.shape == (2, NETWORKS[name].classes)
    assert last.shape == (2, *features)
    assert logits.dtype == last.dtype == jnp.float32


def _assert_every_gradient(network, x):
    variables = random_variables(network, x)

    def loss(variables, x):
        (logits, features), sown = network.apply(variables, x, mutable=["bn_inputs"])
        matched = jax.tree.map(
            lambda a, b: jnp.sum((a - b) ** 2),
            sown["bn_inputs"],
            variables["batch_stats"],
        )
        return (
            jnp.sum(logits**2)
            + jnp.mean(features**2)
            + jax.tree.reduce(jnp.add, matched)
        )

    gradients = jax.jit(jax.grad(loss, (0, 1)))(variables, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


@pytest.mark.slow
def test_own_network_has_every_gradient_finite_and_not_zero():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8, 3)), jnp.float32)
    _assert_every_gradient(PlainNet(layers=FloatLayers(), classes=4), x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bottleneck", "mobilenet", "efficientnet_lite", "vgg"]
)
def test_every_gradient_is_finite_and_not_zero(name):
    _assert_every_gradient(create_small(name), random_images(name))


@pytest.mark.parametrize(
    ("name", "classes", "options", "message"),
    [
        ("resnet21", 10, {}, "no network is called 'resnet21'; accepted: .*resnet20"),
        ("resnet20", 10, {"depth": 32}, "no option depth; accepted: shortcut, width"),
        ("resnet18", 10, {"stride_in_first": True}, "accepted: width"),
        ("resnet20", 1, {}, "at least 2 classes, got 1"),
    ],
)
def test_networks_refuse(name, classes, options, message):
    with pytest.raises(UserError, match=message):
        create_network(name, FloatLayers(), classes, **options)


def test_a_cifar_resnet_may_have_any_depth_of_its_kind():
    for depth, name in ((14, "resnet14"), (50, "cifar_resnet50"), (110, "resnet110")):
        assert cifar_resnet(depth) == name
        assert create_network(name, FloatLayers(), 10) == CifarResNet(
            FloatLayers(), 10, depth=depth
        )
    resnet50 = find_network("resnet50")
    assert resnet50 is not None and resnet50.module is ResNet
    # ImageNet's by these names; not 6 n + 2; too deep; a second name.
    for name in ("resnet152", "resnet26", "resnet21", "resnet1208", "cifar_resnet20"):
        assert find_network(name) is None


def test_networks_are_static_arguments():
    first, second = (
        create_network("vgg16_bn", FloatLayers(), 10, hidden=64) for _ in range(2)
    )
    assert first == second
    assert hash(first) == hash(second)


def test_a_residual_network_refuses_another_depth():
    network = CifarResNet(FloatLayers(), 10, depth=21)
    with pytest.raises(ValueError, match=r"8, 14, 20, .* got 21"):
        network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))

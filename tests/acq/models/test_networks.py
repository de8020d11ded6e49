import jax
import jax.numpy as jnp
import pytest

from acq.layers import FloatLayers
from acq.models import NETWORKS, create_network
from common.errors import UserError


def _shapes(name, size=None, classes=None, **options):
    known = NETWORKS[name]
    network = create_network(name, FloatLayers(), classes or known.classes, **options)
    size = size or known.image_size
    x = jax.ShapeDtypeStruct((2, size, size, known.channels), jnp.float32)
    outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    return variables, outputs


def _count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "options", "count", "features"),
    [
        ("resnet20", {}, 269_722, (8, 8, 64)),
        ("resnet20", {"shortcut": "projection"}, 272_474, (8, 8, 64)),
        ("resnet18", {}, 11_689_512, (7, 7, 512)),
        ("resnet34", {}, 21_797_672, (7, 7, 512)),
        ("resnet50", {}, 25_557_032, (7, 7, 2048)),
        ("resnet50", {"stride_in_first": True}, 25_557_032, (7, 7, 2048)),
        ("mobilenet_v2", {}, 3_504_872, (7, 7, 1280)),
        ("mobilenet_v2", {"width_multiplier": 0.5}, 1_968_680, (7, 7, 1280)),
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


@pytest.mark.parametrize(
    ("name", "classes", "options", "message"),
    [
        ("resnet21", 10, {}, "no network is called 'resnet21'; accepted: .*resnet20"),
        ("resnet20", 10, {"depth": 32}, "no option depth; accepted: shortcut, width"),
        ("resnet20", 1, {}, "at least 2 classes, got 1"),
    ],
)
def test_networks_refuse(name, classes, options, message):
    with pytest.raises(UserError, match=message):
        create_network(name, FloatLayers(), classes, **options)

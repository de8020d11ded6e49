import jax
import numpy as np
import pytest

from acq.layers.float import FloatLayers
from acq.models import NETWORKS, create_network
from tests.acq.models.small import SMALL, create_small, random_images

torch_classifiers = pytest.importorskip(
    "tests.oracles.torch_classifiers", reason="needs torch", exc_type=ImportError
)
# A dozen layers of float32 sums in other orders, values of order 1.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def _assert_parity(network, x, *, train):
    twin = torch_classifiers.create_twin(network).train(train)
    variables = torch_classifiers.variables_of(twin)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
    apply = jax.jit(network.apply, static_argnames=("train", "mutable"))
    found, collections = apply(variables, x, train=train, mutable=("batch_stats",))
    expected = twin(torch_classifiers.to_torch(x))
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = np.asarray(ours), torch_classifiers.from_torch(theirs)
        assert np.std(ours) > 0.05
        np.testing.assert_allclose(ours, theirs, **CLOSE)
    # In train mode PyTorch's running statistics have moved.
    updated = torch_classifiers.variables_of(twin)["batch_stats"]
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, **CLOSE),
        collections["batch_stats"],
        updated,
    )
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max() > 1e-3, updated, variables["batch_stats"]
    )
    assert set(jax.tree.leaves(moved)) == {train}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cifar", "bottleneck", "mobilenet", "efficientnet_lite", "vgg"]
)
def test_network_computes_what_plain_pytorch_does(name):
    _assert_parity(create_small(name), random_images(name), train=False)


@pytest.mark.slow
def test_batchnorm_trains_as_in_plain_pytorch():
    _assert_parity(create_small("cifar"), random_images("cifar"), train=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SMALL) - {"cifar"}))
def test_every_form_trains_as_in_plain_pytorch(name):
    _assert_parity(create_small(name), random_images(name), train=True)


@pytest.mark.parametrize(
    ("name", "count", "keys", "some"),
    [
        ("resnet20", 269_722, 116, ["layer2.0.conv1.weight", "linear.bias"]),
        ("resnet18", 11_689_512, 122, ["layer4.0.downsample.1.running_var"]),
        ("resnet34", 21_797_672, 218, ["layer3.5.bn2.weight", "fc.weight"]),
        ("resnet50", 25_557_032, 320, ["layer1.0.downsample.0.weight"]),
        (
            "mobilenet_v2",
            3_504_872,
            314,
            [
                "features.1.conv.1.weight",
                "features.2.conv.1.0.weight",
                "classifier.1.bias",
            ],
        ),
        (
            "efficientnet_lite0",
            4_652_008,
            296,
            [
                "blocks.0.0.conv_pw.weight",
                "blocks.2.1.conv_pwl.weight",
                "bn2.running_var",
            ],
        ),
        (
            "vgg16_bn",
            138_365_992,
            97,
            ["features.41.running_mean", "classifier.6.bias"],
        ),
    ],
)
def test_pytorch_form_has_the_published_names(name, count, keys, some):
    network = create_network(name, FloatLayers(), NETWORKS[name].classes)
    with torch_classifiers.torch.device("meta"):
        twin = torch_classifiers.TWINS[type(network)](network, 3)
    assert sum(p.numel() for p in twin.parameters()) == count
    state = twin.state_dict()
    assert len(state) == keys
    assert set(some) <= set(state)

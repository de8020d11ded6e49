import flax.linen as nn
import jax
import pytest

from acq.layers.float import FloatLayers
from acq.models import VGG, MobileNetV2, ResNet, create_network
from acq.teacher.own_network import check_network, create_own_network
from common.errors import UserError
from tests.acq import odd_networks

MODULE = odd_networks.__name__
SHAPE = (2, 8, 8, 3)


def _check(class_name):
    network = create_own_network(f"{MODULE}:{class_name}", 5)
    return check_network(network, SHAPE, 5, name=class_name)


def test_a_network_outside_the_zoo_is_accepted():
    network = create_own_network(f"{MODULE}:Small", 5)
    assert network == odd_networks.Small(FloatLayers(), 5)
    variables = _check("Small")
    assert variables["params"]["stem"]["kernel"].shape == (3, 3, 3, 4)
    assert jax.tree.leaves(variables["batch_stats"])[0].shape == (4,)


@pytest.mark.parametrize(
    "network",
    [
        create_network("resnet8", FloatLayers(), 5, shortcut="projection"),
        ResNet(FloatLayers(), 5, stage_sizes=(1, 1), bottleneck=True),
        MobileNetV2(FloatLayers(), 5, stages=((1, 8, 1, 1), (6, 8, 2, 2))),
        VGG(FloatLayers(), 5, stages=((4,), (4, 4)), hidden=4),
    ],
    ids=lambda network: type(network).__name__,
)
def test_networks_of_the_zoo_are_accepted(network):
    check_network(network, (1, 32, 32, 3), 5, name="zoo")


def test_one_position_in_the_last_features_is_enough():
    network = ResNet(FloatLayers(), 5, stage_sizes=(1,), width=4)
    check_network(network, (1, 4, 4, 3), 5, name="one position")


@pytest.mark.parametrize(
    ("class_name", "said"),
    [
        ("WithoutNorm", "it has no batch normalisation"),
        ("LogitsOnly", r"must return logits \(2, 5\) and features .* got a "),
        ("FlatFeatures", r"must return .*got \(2, 5\) and \(2, 4\)"),
        ("OtherClasses", r"must return .*got \(2, 6\)"),
        ("FlaxConvolution", "did not make hidden/kernel"),
        ("FlaxNorm", "layers.batch_norm did not make all"),
        ("FlaxActivation", "no activation, made by its layers"),
        ("WithoutTrain", "must take a second argument, train"),
    ],
)
def test_networks_that_cannot_be_quantized_are_refused(class_name, said):
    with pytest.raises(UserError, match=rf"{class_name}.*(\n.*)*{said}") as error:
        _check(class_name)
    assert "See acq/models/README.md" in str(error.value)


def test_images_that_do_not_fit_are_told():
    class Odd(odd_networks.Small):
        @nn.compact
        def __call__(self, x, train=False):
            return super().__call__(x.reshape(-1, 7, 7, 3), train)

    with pytest.raises(UserError, match=r"applied to images of \(8, 8, 3\): .*reshape"):
        check_network(Odd(FloatLayers(), 5), SHAPE, 5, name="Odd")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{MODULE}:Nothing", r"no linen module 'Nothing'; it has .*Small"),
        (f"{MODULE}:jnp", "no linen module 'jnp'"),
        ("no_such_package.module:Net", "no module 'no_such_package' can be imported"),
        (f"{MODULE}:WithoutLayers", "must have the attributes layers and classes"),
        (f"{MODULE}:NeedsMore", "defaults for all others; it has .*depth"),
    ],
)
def test_names_of_no_such_network_are_refused(name, said):
    with pytest.raises(UserError, match=said):
        create_own_network(name, 5)

import jax
import numpy as np
import pytest

from acq.layers.float import FloatLayers
from acq.models import (
    VGG,
    CifarResNet,
    EfficientNetLite,
    MobileNetV2,
    ResNet,
    create_network,
)
from acq.models.efficientnet_lite import LITE0
from acq.weights.names import naming_of, to_variables
from common.errors import UserError
from tests.acq import foreign_state_dicts as theirs

SMALL = {"layers": FloatLayers(), "classes": 3}
CIFAR = CifarResNet(depth=14, shortcut="projection", width=2, **SMALL)
IMAGENET = ResNet(stage_sizes=(2, 2, 2, 2), width=2, **SMALL)
BOTTLENECK = ResNet(stage_sizes=(1, 1, 1, 1), bottleneck=True, width=2, **SMALL)
MOBILE = MobileNetV2(width_multiplier=0.1, **SMALL)
LITE = EfficientNetLite(
    stages=tuple((size, ratio, 2, *rest) for size, ratio, _, *rest in LITE0),
    stem=2,
    head=4,
    **SMALL,
)
VGG16 = VGG(stages=((2, 2), (2, 2), (2, 2, 2), (2, 2, 2), (2, 3, 2)), hidden=4, **SMALL)
CASES = {
    "akamaster": (CIFAR, theirs.akamaster(2)),
    "chenyaofo": (CIFAR, theirs.chenyaofo(2)),
    "pytorchcv cifar": (CIFAR, theirs.pytorchcv_resnet(2, stages=3, convolutions=2)),
    "torchvision resnet": (IMAGENET, theirs.torchvision_resnet(2, 2)),
    "pytorchcv resnet": (
        IMAGENET,
        theirs.pytorchcv_resnet(2, stages=4, convolutions=2),
    ),
    "torchvision bottleneck": (BOTTLENECK, theirs.torchvision_resnet(1, 3)),
    "pytorchcv bottleneck": (
        BOTTLENECK,
        theirs.pytorchcv_resnet(1, stages=4, convolutions=3),
    ),
    "torchvision mobilenet": (MOBILE, theirs.torchvision_mobilenet()),
    "timm mobilenet": (MOBILE, theirs.timm_mobilenet()),
    "pytorchcv mobilenet": (MOBILE, theirs.pytorchcv_mobilenet()),
    "timm efficientnet-lite": (LITE, theirs.timm_efficientnet_lite()),
    "listed efficientnet-lite": (LITE, theirs.listed_efficientnet_lite()),
    "torchvision vgg": (VGG16, theirs.torchvision_vgg()),
    "timm vgg": (VGG16, theirs.timm_vgg()),
    "pytorchcv vgg": (VGG16, theirs.pytorchcv_vgg()),
}
CASES = {case: (network, list(names)) for case, (network, names) in CASES.items()}


def _convert(tensors, like, network="net", source="file"):
    return to_variables(tensors, like, network=network, source=source)


def _assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_foreign_names_give_the_variables_they_were_made_of(case):
    network, names = CASES[case]
    variables = theirs.random_variables(network)
    tensors = theirs.tensors_of(variables, names)
    if case == "timm vgg":
        tensors["pre_logits.fc1.weight"] = tensors["pre_logits.fc1.weight"].reshape(
            4, 2, 7, 7
        )
        tensors["pre_logits.fc2.weight"] = tensors["pre_logits.fc2.weight"].reshape(
            4, 4, 1, 1
        )
    found = _convert(tensors, variables)
    _assert_same(found, variables)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.module.", "model.net."])
@pytest.mark.parametrize("case", ["akamaster", "pytorchcv mobilenet", "timm vgg"])
def test_modules_around_the_network_do_not_count(case, wrapper):
    network, names = CASES[case]
    variables = theirs.random_variables(network)
    tensors = theirs.tensors_of(variables, names)
    wrapped = {wrapper + name: tensor for name, tensor in tensors.items()}
    _assert_same(_convert(wrapped, variables), variables)
    extra = {f"{wrapper}more.weight": np.ones(3, np.float32)}
    with pytest.raises(UserError, match=rf"left over \(1\):\n    {wrapper}more"):
        _convert(wrapped | extra, variables)


def test_names_of_endless_modules_are_refused_at_once():
    variables, _ = _cifar()
    # Looked into to the end, this would take hours.
    tensors = {"a." * 100_000 + "weight": np.ones(3, np.float32)}
    with pytest.raises(UserError, match=r"left over \(1\)"):
        _convert(tensors, variables)


def test_a_network_inside_a_module_of_its_own_keeps_it():
    variables = theirs.random_variables(CIFAR)
    inside = {kind: {"model": tree} for kind, tree in variables.items()}
    paths = [f"model/{ours}" for ours, _ in CASES["akamaster"][1]]
    names = [(path, path.replace("/", ".")) for path in paths]
    _assert_same(_convert(theirs.tensors_of(inside, names), inside), inside)


def test_pytorchcv_convolutions_without_bias_have_one_of_zero():
    variables = theirs.random_variables(MOBILE)
    tensors = theirs.tensors_of(variables, CASES["pytorchcv mobilenet"][1])
    del tensors["output.bias"]
    tensors["output.weight"] = tensors["output.weight"][:, :, None, None]
    variables["params"]["classifier"]["bias"][:] = 0
    _assert_same(_convert(tensors, variables), variables)


def test_a_dense_layer_or_another_naming_may_not_lack_its_bias():
    for case, lacking in (
        ("pytorchcv vgg", "output.fc3.bias"),
        ("torchvision vgg", "features.0.bias"),
    ):
        variables = theirs.random_variables(VGG16)
        tensors = theirs.tensors_of(variables, CASES[case][1])
        del tensors[lacking]
        with pytest.raises(UserError, match=r"missing \(1\):\n.*/bias"):
            _convert(tensors, variables)


@pytest.mark.parametrize("separator", ["/", "."])
def test_our_own_names_and_layout_are_read(separator):
    variables = theirs.random_variables(CIFAR)
    tensors = {separator.join(p): leaf for p, leaf in theirs.paths_of(variables)}
    _assert_same(_convert(tensors, variables), variables)


def _cifar(depth=8, classes=3, shortcut="zero_pad"):
    network = create_network(
        f"resnet{depth}", FloatLayers(), classes, shortcut=shortcut
    )
    variables = theirs.random_variables(network)
    names = list(theirs.akamaster((depth - 2) // 6))
    return variables, theirs.tensors_of(variables, names)


def test_left_over_missing_and_misshapen_tensors_are_listed():
    variables, tensors = _cifar()
    tensors["extra.weight"] = np.zeros(3, np.float32)
    del tensors["layer1.0.bn1.running_var"]
    tensors["conv1.weight"] = np.zeros((16, 1, 3, 3), np.float32)
    with pytest.raises(UserError) as error:
        _convert(tensors, variables, network="resnet8", source="w.pth")
    for line in (
        "w.pth: not the weights of resnet8:\n",
        "missing (1):\n    batch_stats/layer1_0/bn1/var",
        "left over (1):\n    extra.weight",
        "of another shape (1):\n    conv1.weight: (16, 1, 3, 3), here (16, 3, 3, 3)",
    ):
        assert line in str(error.value)


def test_long_lists_are_cut_and_counted():
    variables, tensors = _cifar()
    extra = {f"extra{i}": np.zeros(1, np.float32) for i in range(9)}
    with pytest.raises(
        UserError, match=r"left over \(9\):(\n    extra\d){4}\n.*5 more"
    ):
        _convert({**tensors, **extra}, variables)


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_advice_is_asked_for_with_the_innermost_names(wrapper):
    _, tensors = _cifar(depth=14)
    variables, _ = _cifar(depth=8)
    advised = []

    def advise(tensors):
        advised.append(set(tensors))
        return ["Give another file."]

    with pytest.raises(UserError, match=r"left over \(\d+\):\n(.*\n)+Give another f"):
        to_variables(
            {wrapper + name: tensor for name, tensor in tensors.items()},
            variables,
            network="resnet8",
            source="w.pth",
            advise=advise,
        )
    kept = {name for name in tensors if not name.endswith("num_batches_tracked")}
    assert advised == [kept]


@pytest.mark.parametrize(
    ("case", "naming"),
    [
        ("torchvision bottleneck", "PyTorch"),
        ("pytorchcv bottleneck", "pytorchcv ResNet"),
        ("timm efficientnet-lite", "timm EfficientNet"),
        ("listed efficientnet-lite", "EfficientNet-PyTorch"),
        ("timm vgg", "timm VGG"),
    ],
)
def test_the_naming_that_fits_is_told(case, naming):
    network, names = CASES[case]
    variables = theirs.random_variables(network)
    tensors = theirs.tensors_of(variables, names)
    assert naming_of(tensors, variables) == naming
    ours = {"/".join(path): leaf for path, leaf in theirs.paths_of(variables)}
    assert naming_of(ours, variables) == ""
    first = next(iter(tensors))
    assert naming_of({**tensors, first: np.ones(1)}, variables) is None
    del tensors[first]
    assert naming_of(tensors, variables) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full(16, np.nan, np.float32), "is not finite"),
        (np.full(16, np.inf, np.float32), "is not finite"),
        (np.full(16, -1, np.float32), "a variance, is below 0"),
        (np.ones(16, np.int8), "is of int8, not floats"),
    ],
)
def test_numbers_that_no_network_has_are_refused(values, said):
    variables, tensors = _cifar()
    tensors["bn1.running_var"] = values
    with pytest.raises(UserError, match=rf"bn1\.running_var,? {said}"):
        _convert(tensors, variables)


def _with_statistics(mean, var):
    variables, tensors = _cifar()
    for name, tensor in tensors.items():
        for kind, values in (("mean", mean), ("var", var)):
            if name.endswith(f"running_{kind}") and values is not None:
                tensors[name] = np.full_like(tensor, values)
    return variables, tensors


def test_batch_normalisation_that_was_never_trained_is_refused():
    variables, tensors = _with_statistics(0, 1)
    with pytest.raises(UserError) as error:
        _convert(tensors, variables)
    message = str(error.value)
    assert "running_mean is all 0 and" in message
    assert "running_var all 1, as in 6 other layers. Likely" in message
    # One layer that learned is enough: others may be frozen.
    tensors["bn1.running_mean"] = np.full(16, 1e-3, np.float32)
    _convert(tensors, variables)


@pytest.mark.parametrize(("mean", "var"), [(0, None), (None, 1)])
def test_means_of_0_or_variances_of_1_alone_are_no_sign(mean, var):
    variables, tensors = _with_statistics(mean, var)
    _convert(tensors, variables)


def test_a_layer_of_no_variance_is_refused_and_a_dead_channel_not():
    variables, tensors = _cifar()
    tensors["bn1.running_var"][0] = 0
    _convert(tensors, variables)
    tensors["bn1.running_var"][:] = 0
    with pytest.raises(UserError, match=r"bn1\.running_var, variances .*are all 0\. "):
        _convert(tensors, variables)

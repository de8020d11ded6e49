"""Our networks with random weights of the libraries that publish networks.

Needs PyTorch and, for its networks, each of torchvision, timm and pytorchcv.
"""

import jax
import numpy as np
import pytest

from acq.layers.float import FloatLayers
from acq.models import create_network
from acq.weights.names import to_variables
from common.weights.files import read_weights

torch = pytest.importorskip("torch", reason="needs torch")


def _torchvision(name):
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    return models.get_model(name, weights=None)


def _timm(name):
    return pytest.importorskip("timm", exc_type=ImportError).create_model(name)


def _pytorchcv(name):
    provider = "pytorchcv.model_provider"
    return pytest.importorskip(provider, exc_type=ImportError).get_model(name)


def _randomize(module):
    """Sets running statistics, scales and biases that no new network has."""
    tensors = [*module.parameters(), *module.buffers()]
    for tensor in tensors:
        if tensor.ndim == 1:
            tensor.data.add_(torch.rand(tensor.shape) * 0.5)
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "theirs", "ours", "options"),
    [
        (_torchvision, "resnet18", "resnet18", {}),
        (_torchvision, "resnet50", "resnet50", {}),
        (_torchvision, "mobilenet_v2", "mobilenet_v2", {}),
        (_torchvision, "vgg16_bn", "vgg16_bn", {}),
        (_timm, "resnet34", "resnet34", {}),
        (_timm, "resnet50", "resnet50", {}),
        (_timm, "mobilenetv2_100", "mobilenet_v2", {}),
        (_timm, "tf_efficientnet_lite0", "efficientnet_lite0", {}),
        (_timm, "vgg16_bn", "vgg16_bn", {}),
        (_pytorchcv, "resnet18", "resnet18", {}),
        (_pytorchcv, "resnet50", "resnet50", {"stride_in_first": True}),
        (_pytorchcv, "resnet50b", "resnet50", {}),
        (_pytorchcv, "mobilenetv2b_w1", "mobilenet_v2", {}),
        (_pytorchcv, "bn_vgg16b", "vgg16_bn", {}),
        (_pytorchcv, "bn_vgg16", "vgg16_bn", {}),
        (_pytorchcv, "resnet20_cifar10", "resnet20", {"shortcut": "projection"}),
    ],
)
def test_weights_of_a_library_give_its_logits(tmp_path, library, theirs, ours, options):
    torch.manual_seed(0)
    module = _randomize(library(theirs))
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    size = 32 if "cifar" in theirs else 224
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = module(x).numpy()
    network = create_network(ours, FloatLayers(), expected.shape[1], **options)
    x = x.numpy().transpose(0, 2, 3, 1)
    variables = to_variables(
        read_weights(tmp_path / "weights.pth"),
        jax.eval_shape(network.init, jax.random.key(0), x),
        network=ours,
        source=theirs,
    )
    found, _ = jax.jit(network.apply)(variables, x)
    # Float32 sums of some dozen layers in other orders.
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)

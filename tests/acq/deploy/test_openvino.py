"""OpenVINO runs the files that onnxruntime runs, with integers."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.deploy.network_graph import integer_graph
from acq.deploy.onnx_file import onnx_model
from acq.deploy.trace import ConvLayer
from common.onnx.openvino import compile_onnx
from tests.acq.deploy.small_networks import classifier, images, ready
from tests.common.onnx.openvino_precisions import precisions

COUNT = 400
pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="no openvino")


def compared(name, bits):
    """Returns our logits, OpenVINO's, and both numbers of convolutions."""
    small, batch = ready(name, bits).network, images(COUNT)
    graph = integer_graph(small)
    network = compile_onnx(onnx_model(graph, small.record).SerializeToString())
    theirs = network(np.ascontiguousarray(np.moveaxis(batch, -1, 1)))[0]
    convolutions = sum(isinstance(value.layer, ConvLayer) for value, _ in graph.kernels)
    return np.asarray(small(batch)), theirs, convolutions, precisions(network)


@pytest.mark.parametrize("name", ["own", pytest.param("vgg", marks=pytest.mark.slow)])
def test_networks_without_sums_are_ours(name):
    ours, theirs, convolutions, found = compared(name, 4)
    assert found == {"u8": convolutions}
    np.testing.assert_array_equal(theirs.argmax(1), ours.argmax(1))
    # Equal but for the order of float32 sums; a code is a fifteenth.
    np.testing.assert_allclose(theirs, ours, atol=5e-5 * np.ptp(ours))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar", "mobilenet", "efficientnet_lite"])
def test_networks_with_sums_are_as_near_to_the_floats_as_ours(name):
    """OpenVINO adds a branch to a convolution's sum before that is rounded.

    So codes after a sum may differ by one, and later layers pass that on.
    """
    ours, theirs, convolutions, found = compared(name, 8)
    assert found == {"u8": convolutions}
    assert np.mean(theirs.argmax(1) == ours.argmax(1)) >= 0.98
    teacher = classifier(name)
    x = teacher.record.normalisation.normalise(jnp.asarray(images(COUNT)))
    floats, _ = jax.jit(teacher.network.apply)(teacher.variables, x)
    error_of_ours, error = (np.mean(np.abs(y - floats)) for y in (ours, theirs))
    assert error <= 1.1 * error_of_ours

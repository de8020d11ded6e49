"""Reshapes of tensors that are stored channels first, against NumPy's."""

import numpy as np
import onnxruntime
import pytest

from common.onnx.graph import Graph
from common.onnx.package import onnx_model
from common.onnx.reshape import reshaped
from common.onnx.values import NCHW, Tensor
from common.onnx.walk import BATCH
from common.onnx.writer import Writer


def written(shape, new):
    """Returns the graph of a reshape of NHWC images, and its result."""
    writer = Writer(Graph("x", "y"))
    tensor = reshaped(writer, Tensor("x", NCHW, (BATCH, *shape)), (BATCH, *new))
    return writer, tensor


@pytest.mark.parametrize(
    ("shape", "new", "kinds"),
    [
        ((4, 6, 8), (4, 6, 8), []),
        ((4, 6, 8), (2, 2, 3, 2, 8), ["Reshape"]),
        ((4, 6, 8), (24, 2, 4), ["Reshape"]),
        ((4, 6, 8), (4, 48), ["Transpose", "Reshape"]),
        ((4, 6, 1), (4, 6), ["Reshape"]),
        ((4, 6, 8), (1, 4, 6, 1, 8), ["Reshape"]),
    ],
)
def test_values_are_numpy_s_and_few_nodes_are_needed(shape, new, kinds):
    writer, tensor = written(shape, new)
    assert [node.kind for node in writer.graph.nodes] == kinds
    writer.graph.finish(writer.ordered(tensor, tuple(range(len(new) + 1))).name)
    model = onnx_model(
        writer.graph,
        ("n", shape[2], *shape[:2]),
        ("n", *new),
        name="reshape",
        producer="tests",
        description="",
    )
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": x.transpose(NCHW)})
    np.testing.assert_array_equal(found, x.reshape(3, *new))


@pytest.mark.parametrize("new", [(BATCH * 4, 6, 8), (4, BATCH * 6, 8)])
def test_images_of_a_batch_are_not_mixed(new):
    writer = Writer(Graph("x", "y"))
    x = Tensor("x", NCHW, (BATCH, 4, 6, 8))
    assert reshaped(writer, x, new) is None

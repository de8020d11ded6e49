"""onnxruntime computes what our networks do, for images of any size."""

import collections
import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest

from common.errors import UserError
from ipv2.deploy.network_graph import denoiser_graph
from tests.ipv2.deploy.small_networks import (
    content_of,
    expected,
    noisy,
    run,
    trained,
)

HERE = "tests.ipv2.deploy.small_networks"
# float32 has 7 digits: 2e-4 HU at 1000 HU. Sums of up to 5,000 products of numbers
# of that size, in another order, lose up to two more. 0.008 HU was measured (RED-CNN).
ATOL_HU = 0.02

NETWORKS = [
    *(("cnn10", 1), ("dncnn", 3), ("unet", 1)),
    *(
        pytest.param(name, channels, marks=pytest.mark.slow)
        for name in ("cnn10", "redcnn", "dncnn", "unet", "nafnet", "restormer")
        for channels in (1, 3)
        if (name, channels) not in (("cnn10", 1), ("dncnn", 3), ("unet", 1))
    ),
]


@pytest.mark.parametrize(("name", "channels"), NETWORKS)
def test_values_are_the_network_s_at_every_size(name, channels):
    network = trained(name, channels=channels)
    content, found = content_of(network)
    assert not found.fixed and found.least == 32
    for size in ((1, 32, 32), (2, 48, 80)):
        hu = noisy(*size, channels)
        want = expected(network, hu)
        assert np.std(want - hu[..., channels // 2]) > 10  # the network does something
        np.testing.assert_allclose(run(content, hu), want, rtol=0, atol=ATOL_HU)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_layers_of_a_user_s_network_are_written(channels):
    network = trained(f"{HERE}:ManyLayers", channels=channels)
    content, found = content_of(network)
    assert not found.fixed
    hu = noisy(2, 32, 44, channels)
    want = expected(network, hu)
    assert np.std(want - hu[..., channels // 2]) > 10
    np.testing.assert_allclose(run(content, hu), want, rtol=0, atol=ATOL_HU)


@pytest.mark.slow
def test_a_network_with_constants_of_the_images_size_takes_one_size():
    network = trained(f"{HERE}:KnowsPlaces")
    content, found = content_of(network)
    assert found.fixed and found.least == 256
    hu = noisy(1, 256, 256, 1)
    np.testing.assert_allclose(
        run(content, hu), expected(network, hu), rtol=0, atol=ATOL_HU
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fm", r"fm cannot be exported as ONNX: it is a flow: .* step of a sampler\. "),
        ("ffm", r"ffm cannot .* Fourier transforms, which ONNX .* Accepted: cnn10, dn"),
        (f"{HERE}:JoinsOnes", r"'concatenate' to .* a constant that is repeated for e"),
        (f"{HERE}:Sorts", r"the operation 'sort' cannot be exported; accepted: abs, a"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_reason(name, said):
    small = {"width": 16, "multipliers": (1,)} if name in ("fm", "ffm") else {}
    with pytest.raises(UserError, match=said):
        denoiser_graph(trained(name, **small))


def test_a_network_trained_in_bfloat16_is_computed_in_float32():
    full = trained("dncnn")
    half = dataclasses.replace(
        full, spec=dataclasses.replace(full.spec, dtype="bfloat16")
    )
    assert content_of(half)[0] == content_of(full)[0]


@pytest.mark.slow
def test_runtimes_join_layers_with_what_follows_them(tmp_path):
    """Batch normalisation, bias, rectifier and pool are no nodes of their own."""
    for name, kinds in (
        ("dncnn", {"FusedConv": 3, "Conv": 1, "Sub": 1, "Mul": 1, "Div": 1}),
        ("unet", {"MaxPool": 2}),
    ):
        content, _ = content_of(trained(name))
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / name)
        options.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        )
        options.log_severity_level = 3
        onnxruntime.InferenceSession(content, options)
        nodes = onnx.load(str(tmp_path / name)).graph.node
        found = collections.Counter(node.op_type for node in nodes)
        print(name, dict(found))
        assert kinds.items() <= found.items()
        assert not {"BatchNormalization", "Relu"} & set(found)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax.traverse_util import flatten_dict

from acq.deploy.integer_ready import make_integer_ready
from acq.deploy.network_graph import float_graph, integer_graph
from acq.deploy.onnx_file import onnx_model
from acq.deploy.trace import ConvLayer
from acq.layers.float import FloatLayers, Layers
from acq.layers.integer import IntegerActivation
from common.errors import UserError
from tests.acq.deploy.small_networks import (
    classifier,
    classifier_of,
    images,
    logits,
    optimised_operators,
    quantized,
    quantized_of,
    ready,
    session,
)
from tests.acq.models.small import SMALL
from tests.acq.own_network import PlainNet

COUNT = 400
# Compiled in a second; the others take seconds each.
FAST = {("own", 4), ("cifar", 4)}


def _marks(name, bits):
    if (name, bits) in FAST:
        return ()
    return (pytest.mark.slow, *([pytest.mark.long] if bits in (2, 3) else []))


NETWORKS = [
    pytest.param(name, bits, marks=_marks(name, bits))
    for name in ("own", *SMALL)
    for bits in (2, 3, 4, 8)
]


def model_of(small):
    return onnx_model(integer_graph(small), small.record)


@pytest.mark.parametrize(("name", "bits"), NETWORKS)
def test_onnxruntime_computes_our_integer_network(name, bits):
    small, batch = ready(name, bits).network, images(COUNT)
    model, ours = model_of(small), np.asarray(small(batch))
    optimised = logits(model, batch)
    plain = logits(model, batch, optimised=False)
    for first, second in ((optimised, ours), (plain, ours), (optimised, plain)):
        assert np.mean(first.argmax(1) == second.argmax(1)) >= 0.995
        apart = np.max(np.abs(first - second), axis=1) / np.ptp(ours)
        # Equal but for the order of sums, in most images.
        assert np.mean(apart < 5e-5) >= 0.9
        # A sum of float32 on the other side of a half gives the next code, which
        # later layers pass on. In steps of the activations' bits:
        steps = apart * (2**bits - 1)
        assert np.mean(steps <= 1) >= 0.995
        assert np.max(steps) <= 2


def activations_of_ours(small, batch):
    """Returns {name: values} of the quantized activations, NHWC."""

    def is_rounded(module, _):
        return isinstance(module, IntegerActivation)

    @jax.jit
    def collect(variables, x):
        return small.network.apply(
            variables, x, capture_intermediates=is_rounded, mutable=["intermediates"]
        )[1]["intermediates"]

    x = small.record.normalisation.normalise(jnp.asarray(batch))
    found = flatten_dict(collect(small.variables, x), sep="/")
    return {
        name.removesuffix("/__call__"): np.asarray(values[0])
        for name, values in found.items()
    }


def codes_of_onnx(model, names, batch):
    """Returns {name: codes} of the same activations, as onnxruntime computes them."""
    made = {node.output[0] for node in model.graph.node}
    outputs = [f"{n}/clipped" if f"{n}/clipped" in made else n for n in names]
    for name in outputs:
        kind = onnx.TensorProto.UINT8
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    found = session(model, optimised=False).run(
        outputs, {"images": np.ascontiguousarray(np.moveaxis(batch, -1, 1))}
    )
    return {
        name: np.moveaxis(codes, 1, -1) if codes.ndim == 4 else codes
        for name, codes in zip(names, found, strict=True)
    }


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("own", 4),
        pytest.param("own", 8, marks=pytest.mark.slow),
        pytest.param("vgg", 4, marks=pytest.mark.slow),
        pytest.param("vgg", 8, marks=pytest.mark.slow),
        pytest.param("basic", 8, marks=pytest.mark.slow),
    ],
)
def test_codes_of_all_activations_are_ours_or_the_next_ones(name, bits):
    small, batch = ready(name, bits).network, images(100)
    values = activations_of_ours(small, batch)
    codes = codes_of_onnx(model_of(small), list(values), batch)
    stored = flatten_dict(small.variables["integers"], sep="/")
    assert len(values) >= 5
    for layer, theirs in codes.items():
        scale, zero = (float(stored[f"{layer}/{k}"]) for k in ("scale", "zero_point"))
        apart = np.abs(np.rint(values[layer] / scale) + zero - theirs.astype(np.int32))
        assert np.max(apart) <= 1, layer
        # The VGG's enlarged features are halves of codes in one value of ten.
        assert np.mean(apart > 0) <= 1e-2, layer


@pytest.mark.parametrize(("name", "bits"), NETWORKS)
def test_every_convolution_is_of_integers_when_it_is_optimised(name, bits, tmp_path):
    small = ready(name, bits).network
    graph = integer_graph(small)
    found = optimised_operators(model_of(small), tmp_path)
    convs = [value for value, _ in graph.kernels if isinstance(value.layer, ConvLayer)]
    assert found.count("QLinearConv") == len(convs) >= 3
    assert not {"Conv", "FusedConv", "ConvInteger"} & set(found)


def test_weights_are_int8_and_biases_int32_in_steps_of_input_times_kernel():
    small = ready("own", 4).network
    model = model_of(small)
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 4
    for node in layers:
        x, kernel, bias = (makers[name] for name in node.input)
        codes, scale, zero = (constants[name] for name in kernel.input)
        assert codes.dtype == zero.dtype == np.int8
        assert not zero.any()
        assert scale.shape == (len(codes),)
        assert constants[bias.input[0]].dtype == np.int32
        step = makers[bias.input[1]]
        assert step.op_type == "Mul"
        assert list(step.input) == [x.input[1], kernel.input[1]]


@pytest.mark.parametrize(
    "name",
    [
        "own",
        *(
            pytest.param(name, marks=() if name == "basic" else pytest.mark.slow)
            for name in SMALL
        ),
    ],
)
def test_the_float_graph_is_the_float_network(name):
    teacher, batch = classifier(name), images(8)
    x = teacher.record.normalisation.normalise(jnp.asarray(batch))
    ours, _ = jax.jit(teacher.network.apply)(teacher.variables, x)
    model = onnx_model(float_graph(teacher), teacher.record)
    # Batch normalisation is folded here, so that sums of float32 differ.
    largest = float(jnp.max(jnp.abs(ours)))
    np.testing.assert_allclose(logits(model, batch), ours, atol=2e-5 * largest)
    kinds = {node.op_type for node in model.graph.node}
    assert not {"BatchNormalization", "QuantizeLinear"} & kinds


def test_images_of_every_batch_size_have_the_same_logits():
    model, batch = model_of(ready("own", 4).network), images(5)
    alone = np.concatenate([logits(model, batch[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(logits(model, batch), alone)


def test_the_file_says_what_it_takes_and_gives():
    model = model_of(ready("own", 4).network)
    (given,), (result,) = model.graph.input, model.graph.output
    sides = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (given, result)
    ]
    assert (given.name, result.name) == ("images", "logits")
    assert sides == [["batch", 3, 20, 20], ["batch", 5]]


class OddNet(nn.Module):
    """A convolution, an operation, and a classifier."""

    layers: Layers
    classes: int
    operation: str = "sin"

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        x = make.activation("identity", name="quant_input")(x)
        x = make.conv(4, 3, padding=1, name="conv")(x)
        if self.operation == "mixed":
            x = x[::-1]
        elif self.operation == "sin":
            x = jnp.sin(x)
        x = make.activation("relu", name="act")(x)
        return make.dense(self.classes, name="head")(jnp.mean(x, (1, 2))), x


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("sin", ["'sin'", "accepted: layers", "reduce_window_max", "transpose"]),
        ("mixed", ["'rev'", "accepted"]),
    ],
)
def test_an_operation_that_cannot_be_exported_is_named_with_those_that_can(
    operation, words
):
    with pytest.raises(UserError) as error:
        float_graph(classifier_of(OddNet(FloatLayers(), 5, operation), "odd"))
    for word in words:
        assert word in str(error.value)


def test_a_convolution_of_a_float_tensor_is_refused():
    with pytest.raises(UserError, match=r"conv0: its input is not quantized.*quant_"):
        integer_graph(quantized("own", 4, others=None))


class FloatBetween(PlainNet):
    """A sum of convolutions that is not quantized."""

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        x = make.activation("identity", name="quant_input")(x)
        y = make.conv(4, 3, padding=1, name="left")(x)
        y = y + make.conv(4, 3, padding=1, name="right")(x)
        y = make.activation("relu", name="act")(y)
        y = make.activation("identity", name="quant_pooled")(jnp.mean(y, (1, 2)))
        return make.dense(self.classes, name="head")(y), x


def test_a_convolution_whose_output_stays_float_is_refused_by_name():
    teacher = classifier_of(FloatBetween(FloatLayers(), 5), "own")
    small = quantized_of(teacher, 4)
    with pytest.raises(UserError, match=r"left: its output reaches add without"):
        make_integer_ready(small)

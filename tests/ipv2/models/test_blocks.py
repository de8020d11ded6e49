import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.models.blocks import (
    ChannelNorm,
    Conv,
    DepthwiseConv,
    DoublingConv,
    HalvingConv,
    pad_to_minimum,
    pad_to_multiple,
)
from tests.ipv2.models.small import random_image, random_variables

# Sums of 75 float32 products of order 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize(
    ("layer", "flax_layer"),
    [
        (Conv(6, 5, "same"), nn.Conv(6, (5, 5), padding="SAME")),
        (Conv(6, 5, "valid"), nn.Conv(6, (5, 5), padding="VALID")),
        (Conv(6, 5, "full"), nn.Conv(6, (5, 5), padding=4)),
        (Conv(6, 1, use_bias=False), nn.Conv(6, (1, 1), use_bias=False)),
        (DepthwiseConv(), nn.Conv(4, (3, 3), feature_group_count=4)),
        (HalvingConv(6), nn.Conv(6, (2, 2), (2, 2))),
        (DoublingConv(6), nn.ConvTranspose(6, (2, 2), (2, 2))),
        (ChannelNorm(1e-2), nn.LayerNorm(1e-2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_is_that_of_flax_with_the_same_parameters(layer, flax_layer):
    x = random_image(2, 12, 10, 4)
    variables = random_variables(flax_layer, x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, jax.eval_shape(layer.init, jax.random.key(0), x)
    )
    y, expected = layer.apply(variables, x), flax_layer.apply(variables, x)
    if isinstance(layer, DoublingConv):
        # flax's transposed convolution has the kernel the other way round.
        kernel = variables["params"]["kernel"][::-1, ::-1]
        flipped = {"params": {**variables["params"], "kernel": kernel}}
        expected = flax_layer.apply(flipped, x)
    np.testing.assert_allclose(y, expected, **CLOSE)


@pytest.mark.slow
def test_full_padding_is_a_transposed_convolution_with_a_flipped_kernel():
    x = random_image(2, 6, 7, 3)
    transposed = nn.ConvTranspose(4, (5, 5), padding="VALID")
    variables = transposed.init(jax.random.key(0), x)
    expected = transposed.apply(variables, x)
    np.testing.assert_allclose(
        Conv(4, 5, "full").apply(variables, x), expected, **CLOSE
    )
    # flax does not flip the kernel; gradient-based transposition (PyTorch's) does.
    gradient_based = nn.ConvTranspose(4, (5, 5), padding="VALID", transpose_kernel=True)
    kernel = variables["params"]["kernel"]
    flipped = {
        "params": {
            "kernel": kernel[::-1, ::-1].swapaxes(2, 3),
            "bias": variables["params"]["bias"],
        }
    }
    np.testing.assert_allclose(gradient_based.apply(flipped, x), expected, **CLOSE)


def test_layers_compute_in_their_dtype_on_float32_parameters():
    x = random_image(1, 4, 4, 2)
    for layer in (Conv(2, 3), DepthwiseConv(), HalvingConv(2), ChannelNorm(1e-6)):
        half = layer.clone(dtype=jnp.bfloat16)
        variables = random_variables(half, x)
        assert {a.dtype for a in jax.tree.leaves(variables)} == {np.dtype("float32")}
        assert jax.eval_shape(half.apply, variables, x).dtype == jnp.bfloat16


def test_images_are_continued_by_their_last_row_and_column():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    expected = [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    np.testing.assert_array_equal(pad_to_multiple(x, 4)[0, ..., 0], expected)
    np.testing.assert_array_equal(pad_to_minimum(x, 4)[0, ..., 0], expected)
    assert pad_to_multiple(x, 1).shape == pad_to_minimum(x, 2).shape == x.shape


def test_conv_refuses_unknown_padding_and_even_same():
    x = jnp.zeros((1, 8, 8, 1))
    with pytest.raises(ValueError, match="'same' padding needs an odd kernel, got 4x4"):
        Conv(2, 4, "same").init(jax.random.key(0), x)

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from acq.deploy.integer_ready import lacks_quantizers, make_integer_ready
from common.errors import UserError
from tests.acq.deploy.small_networks import (
    NORMALISATION,
    images,
    quantized,
    ready,
)


def flat(small):
    return {k: np.asarray(v) for k, v in flatten_dict(small.variables, sep="/").items()}


def batches(count=2):
    return [
        NORMALISATION.normalise(jnp.asarray(images(8, seed=i))) for i in range(count)
    ]


def test_a_network_with_all_quantizers_and_few_bits_changes_only_biases():
    before, after = flat(quantized("own", 4)), flat(ready("own", 4).network)
    changed = {k for k in before if not np.array_equal(before[k], after[k])}
    assert before.keys() == after.keys()
    assert changed <= {"params/head/bias", *(f"params/bn{i}/bias" for i in range(3))}
    assert ready("own", 4)[1:] == ((), ())


def test_biases_move_by_half_a_step_at_most():
    before, after = flat(quantized("own", 4)), flat(ready("own", 4).network)
    step = before["integers/quant_pooled/scale"] * before["integers/head/scale"]
    moved = np.abs(after["params/head/bias"] - before["params/head/bias"])
    assert 0 < moved.max()
    # Codes of 4 bits are multiplied by 8, and so are the bias's steps finer.
    assert np.all(moved <= step / 2)


def test_a_ready_network_stays_as_it_is():
    small = ready("own", 4).network
    again = make_integer_ready(small)
    assert again[1:] == ((), ())
    for name, values in flat(small).items():
        np.testing.assert_allclose(
            flat(again.network)[name], values, rtol=1e-6, err_msg=name
        )


def test_missing_quantizers_are_named_and_need_images():
    small = quantized("own", 4, others=None)
    assert lacks_quantizers(small)
    assert not lacks_quantizers(quantized("own", 4))
    with pytest.raises(
        UserError, match=r"own: quant_input, quant_pooled are float.*other_bits=8"
    ):
        make_integer_ready(small)


def test_missing_quantizers_are_added_with_8_bits():
    small = quantized("own", 4, others=None)
    found = make_integer_ready(small, batches())
    assert found.added == ("quant_input", "quant_pooled")
    assert not lacks_quantizers(found.network)
    assert found.network.manifest["quantizer"]["other_bits"] == 8
    others = found.network.manifest["layer_bits"]["others"]
    assert others == {"quant_input": 8, "quant_pooled": 8}
    x = images(64)
    # 8 bits of input and pooled features: a hundredth of the logits' range.
    largest = np.ptp(np.asarray(small(x)))
    np.testing.assert_allclose(found.network(x), small(x), atol=0.05 * largest)


def test_the_inputs_range_is_that_of_black_and_white_not_of_the_images():
    found = make_integer_ready(quantized("own", 4, others=None), batches())
    stored = flat(found.network)
    scale = float(stored["integers/quant_input/scale"])
    zero_point = int(stored["integers/quant_input/zero_point"])
    black, white = -0.4 / 0.2, 0.6 / 0.2  # of the third channel
    np.testing.assert_allclose(scale, (white - black) / 255, rtol=1e-6)
    assert zero_point == round(-black / scale)


def test_asymmetric_weights_of_8_bits_are_rounded_to_127_steps_a_direction():
    small, found = quantized("own", 8), ready("own", 8)
    assert found.rounded_again
    assert set(found.rounded_again) <= {"conv0", "conv1", "conv2", "head"}
    before, after = flat(small), flat(found.network)
    for name in ("conv0", "conv1", "conv2", "head"):
        old, new = (
            (
                stored[f"integers/{name}/kernel"].astype(np.float64)
                - stored[f"integers/{name}/zero_point"]
            )
            * stored[f"integers/{name}/scale"]
            for stored in (before, after)
        )
        assert after[f"integers/{name}/kernel"].dtype == np.int8
        assert not after[f"integers/{name}/zero_point"].any()
        step = after[f"integers/{name}/scale"]
        assert np.all(np.abs(old - new) <= step * 0.5001)


def test_symmetric_weights_of_8_bits_do_not_change():
    small = quantized("own", 8, symmetric=True)
    found = make_integer_ready(small)
    assert not found.rounded_again
    np.testing.assert_array_equal(
        flat(found.network)["integers/conv1/kernel"],
        flat(small)["integers/conv1/kernel"],
    )

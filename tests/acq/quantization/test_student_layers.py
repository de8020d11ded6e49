"""The first ranges of a student."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acq.quantization.student_layers import statistics_ranges
from acq.tasks.settings import quantization_settings as resolved
from tests.acq.models.small import random_variables
from tests.acq.recipe_config import changed, teacher


def _ranges(**values):
    plain = teacher(image_size=8)
    variables = random_variables(plain.network, jnp.zeros(plain.record.image_shape(2)))
    return statistics_ranges(
        resolved(changed(**values)), dataclasses.replace(plain, variables=variables)
    )


@pytest.mark.slow
def test_the_input_s_range_is_that_of_black_and_white_not_of_noise():
    ready = _ranges(**{"quantizer.other_bits": 8})
    # (0 - 0.5) / 0.2 and (1 - 0.5) / 0.2.
    assert ready["quant_input"] == {"low": np.float32(-2.5), "high": np.float32(2.5)}
    plain = _ranges()
    assert set(ready) - set(plain) == {"quant_input", "quant_pooled"}
    jax.tree.map(
        np.testing.assert_array_equal, plain, {name: ready[name] for name in plain}
    )

"""Quantization in two processes over gloo equals one process with as many devices."""

import json

import jax
import numpy as np
import pytest

from acq.export import load_quantized
from tests.acq.quantize_config import make_config
from tests.processes import run_processes


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_make_what_one_makes(tmp_path):
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        make_config(folder)  # writes the images, once
    found = {
        processes: [
            json.loads(line)
            for line in run_processes(
                "tests.acq.quantize_worker",
                tmp_path / str(processes),
                processes=processes,
                devices=4 // processes,
            )
        ]
        for processes in (1, 2)
    }
    assert found[2][0] == found[2][1]
    (one,), two = found[1], found[2][0]
    for name, value in one["samples"].items():
        # Sums in another order, through three steps of two networks.
        assert two["samples"][name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
    assert two["n"] == one["n"]
    assert two["layer_bits"] == one["layer_bits"]
    ours, theirs = (
        load_quantized(tmp_path / str(processes) / "run" / "export").variables
        for processes in (1, 2)
    )
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        if np.issubdtype(a.dtype, np.integer):
            # A code on the edge between two may fall to either side.
            apart = np.abs(np.asarray(a, int) - np.asarray(b, int))
            assert np.max(apart) <= 1 and np.mean(apart) < 0.01
        else:
            # Adam's first steps are as long for the smallest gradient, whose sign
            # rounding may turn: three steps of 3e-4 either way.
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2 * 3 * 3e-4)

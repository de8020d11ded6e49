"""A quantization by two processes over gloo: what one makes with as many devices."""

import json

import jax
import numpy as np
import pytest

from acq.quantized import load_quantized
from tests.acq.quantize_config import make_config
from tests.processes import run_processes


@pytest.mark.slow
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
        # Sums in another order, through six steps of two networks.
        assert two["samples"][name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
    assert two["n"] == one["n"]
    ours, theirs = (
        load_quantized(tmp_path / str(processes) / "run" / "export").variables
        for processes in (1, 2)
    )
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    apart = jax.tree.map(
        lambda a, b: np.max(np.abs(np.asarray(a, float) - np.asarray(b, float))),
        ours["params"],
        theirs["params"],
    )
    # Codes may flip by one at a tie, floats move by a rounding or two.
    assert max(jax.tree.leaves(apart)) <= 1

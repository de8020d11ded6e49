"""Two processes over gloo: the same run as one process with as many devices."""

import numpy as np
import pytest

from tests.processes import run_processes


def _run(folder, processes, devices, kill_at=0):
    return run_processes(
        "tests.common.process_worker",
        folder,
        processes=processes,
        devices=devices,
        # Only the last process is told to stop: the first must hear of it.
        of_each=lambda process: [str(kill_at if process == processes - 1 else 0)],
    )


def _value(line):
    return np.frombuffer(bytes.fromhex(line.split()[-1]), np.float32)


@pytest.mark.slow
def test_two_processes_equal_one_and_a_stop_reaches_both(tmp_path):
    (one,) = _run(tmp_path / "one", processes=1, devices=4)
    two = _run(tmp_path / "two", processes=2, devices=2)
    assert two[0] == two[1]
    # The same draws, on other devices: sums of 8 numbers in another order, 30 times.
    np.testing.assert_allclose(_value(two[0]), _value(one), rtol=30 * 2**-23)

    cut = _run(tmp_path / "cut", processes=2, devices=2, kill_at=13)
    assert all("after step 20 of 30" in line for line in cut)
    resumed = _run(tmp_path / "cut", processes=2, devices=2)
    assert resumed == two

"""Two processes over gloo: the same run as one process with as many devices."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
WORKER = "tests.common.process_worker"


def _run(folder, processes, devices, kill_at=0):
    """Returns what each process printed last."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}" if processes > 1 else ""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", WORKER),
                *(coordinator, str(processes), str(process), str(folder)),
                # Only the last process is told to stop: the first must hear of it.
                str(kill_at if process == processes - 1 else 0),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors
    return [out.strip().splitlines()[-1] for out, _ in outputs]


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

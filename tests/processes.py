"""Starts a worker module in several processes over gloo, on virtual CPU devices."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.compilation import compilation_environment

ROOT = Path(__file__).parents[1]


def run_processes(worker, folder, *, processes, devices, of_each=lambda process: ()):
    """Returns the last line that each process printed.

    Args:
      worker: module that takes coordinator, processes, process, folder, and more.
      folder: for the worker.
      processes: how many.
      devices: of each of them.
      of_each: further arguments, by the process.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}" if processes > 1 else ""
    environment = os.environ | compilation_environment(devices=devices)
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", worker),
                *(coordinator, str(processes), str(process), str(folder)),
                *of_each(process),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()  # one that waits for another for ever
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors
    return [out.strip().splitlines()[-1] for out, _ in outputs]

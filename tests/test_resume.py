"""Kill and resume, through the command line: the same parameters, bit by bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from common.checkpoint import load_variables
from ipv2.models import create_model
from tests.ipv2.pair_folders import write_pairs

ROOT = Path(__file__).parents[1]


def _command(folder, workdir):
    return [
        *(sys.executable, str(ROOT / "launch.py")),
        *(
            "--config",
            "configs/ipv2_redcnn.py:v1,smoke",
            "--workdir",
            str(folder / workdir),
        ),
        f"--config.data.cache={folder / 'cache'}",
        "--config.model.name=cnn10",
        f"--config.data.root={folder / 'root'}",
        # Nobody is held out: the numbers are not looked at.
        "--config.data.split=(1.0,0.0,0.0)",
        "--config.train.duration=60 steps",
        "--config.train.save=1000 steps",
        "--config.train.evaluate=1000 steps",
        "--config.train.log=1 steps",
    ]


def _exported(folder, workdir):
    """The exported parameters, as bytes."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 1), np.float32)
    like = create_model("cnn10").lazy_init(jax.random.key(0), image)
    loaded = load_variables(folder / workdir / "export", like)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(loaded)]


@pytest.mark.slow
@pytest.mark.optimized
def test_a_killed_run_goes_on_to_the_same_parameters(tmp_path):
    write_pairs(tmp_path / "root", ("p1", "p2"), size=32)
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    run = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    whole = subprocess.run(_command(tmp_path, "whole"), **run)
    assert whole.returncode == 0, whole.stderr

    process = subprocess.Popen(
        _command(tmp_path, "cut"),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 10):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)  # waiting for another process, not for a guess
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "the same command goes on" in errors, errors
    assert not (tmp_path / "cut" / "results.json").exists()

    resumed = subprocess.run(_command(tmp_path, "cut"), **run)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step" in resumed.stderr
    whole, cut = (_exported(tmp_path, workdir) for workdir in ("whole", "cut"))
    assert len(whole) == 6 and cut == whole

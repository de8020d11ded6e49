"""A command that failed at the door does not bind the next, in the default folder."""

import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

ROOT = Path(__file__).parents[1]


def _run(cwd, *arguments):
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "first", "second"),
    [
        (
            "ipv2_redcnn.py:smoke",
            (["--config.data.root=data"], "lq: no such folder"),
            (["--config.data.root=png"], "State the window"),
        ),
        pytest.param(
            "quickstart.py:smoke",
            (["--config.data.root=png"], "State the window"),
            (["--config.data.root=data"], "lq: no such folder"),
            marks=pytest.mark.long,
        ),
        (
            "acq_r20_cifar10.py",
            ([], "config.teacher.weights: needed"),
            (["--config.teacher.weights=junk.npz"], "junk.npz"),
        ),
    ],
)
def test_the_next_command_is_told_of_its_own_fault(tmp_path, recipe, first, second):
    (tmp_path / "data").mkdir()
    (tmp_path / "junk.npz").write_bytes(b"junk")
    for side in ("lq", "gt"):
        (tmp_path / "png" / side).mkdir(parents=True)
        PIL.Image.new("L", (6, 4)).save(tmp_path / "png" / side / "p1.png")
    for arguments, said in (first, second):
        errors = _run(tmp_path, "--config", str(ROOT / "configs" / recipe), *arguments)
        assert said in errors and "another config" not in errors
    assert not list((tmp_path / "runs").rglob("config.json"))

"""The command line as a person meets it: statuses and messages, in a process each."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = "configs/ipv2_redcnn.py"


def _launch(*arguments, cwd=ROOT):
    command = [sys.executable, str(ROOT / "launch.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["--config is missing", "--help"]),
        (["--config"], ["--config is missing"]),
        (["--config", "configs/ipv2_redcn.py"], ["no file", RECIPE]),
        (["--config", f"{RECIPE}:v3"], ["variant 'v3'", "v1", "v2", "smoke"]),
        (
            ["--config", RECIPE, "--config.train.batch_siz=4"],
            ["--config.train.batch_siz: no such key", "config.train.batch_size"],
        ),
        (["--config", RECIPE, "--config.train.batch_size=x"], ["batch_size=x"]),
        pytest.param(
            ["--config", RECIPE, "--task", "trian"],
            ["'trian'", "train"],
            marks=pytest.mark.slow,
        ),
        (["--config", RECIPE, "--wrkdir", "x"], ["wrkdir"]),
        (["--config", RECIPE, "stray"], ["stray"]),
        (
            [
                "--config",
                RECIPE,
                "--config.train.batch_size=-1",
                "--config.purify.version=v9",
                "--config.data.root=/no/such/folder",
            ],
            [
                "3 problems",
                "config.train.batch_size: got -1",
                "config.purify.version: got 'v9', accepted: one of",
                "config.data.root: got '/no/such/folder', accepted: a path that exists",
            ],
        ),
        pytest.param(
            ["--config", "configs/simulate.py", "--config.dose=1.5"],
            ["config.dose: got 1.5, accepted: a number above 0 and at most 1"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: " ".join(value)[:60] or "nothing",
)
def test_a_wrong_command_ends_with_2_and_words(arguments, said):
    done = _launch(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].strip() and "error: " in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr


def test_help_tells_recipes_and_tasks():
    done = _launch("--help")
    assert done.returncode == 0
    for words in (
        "configs/quickstart.py",
        "purify",
        "simulate",
        "denoise",
        "--workdir",
        "--task",
        "resumes",
    ):
        assert words in done.stdout


def test_libraries_installed_inside_the_project_do_not_log_as_ours():
    spec = importlib.util.spec_from_file_location("launch", ROOT / "launch.py")
    launch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launch)
    assert launch.is_ours(str(ROOT / "ipv2" / "train.py"))
    assert launch.is_ours(str(ROOT / "launch.py"))
    assert not launch.is_ours(str(ROOT / ".venv/lib/site-packages/orbax/x.py"))
    assert not launch.is_ours("/usr/lib/python3/ipv2/tasks/train.py")

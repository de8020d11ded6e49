"""Scenarios in new processes: exit statuses, and two at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.trust_checks.batch_rows import Bench, batch_keys
from tests.benchmarks.trust_checks.pair_rows import train_keys
from tests.benchmarks.trust_checks.running import run_keys
from tests.benchmarks.trust_checks.scenarios import Scenario, completion, refusal
from tests.cases import pair_cases
from tests.cases.image_cases import by_sitk, content
from tests.compilation import compilation_environment

ROOT = Path(__file__).parents[3]
_ENVIRONMENT = os.environ | compilation_environment()


def command(recipe: str, task: str, workdir: Path, keys: dict[str, Any]) -> list[str]:
    """Returns a command line."""
    return [
        *(sys.executable, str(ROOT / "launch.py"), "--config", f"configs/{recipe}"),
        *("--task", task, "--workdir", str(workdir)),
        *(f"--config.{key}={value}" for key, value in keys.items()),
    ]


def launch(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        words, cwd=ROOT, env=_ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


def strict(bench: Bench, folder: Path) -> list[str]:
    """With strict=True, a batch with a skipped volume ends in exit status 3."""
    root, output = folder / "in", folder / "out"
    by_sitk("scan.nii.gz")(root / "A", bench.source)
    content("scan.nii.gz", b"hello")(root / "B", bench.source)
    keys = batch_keys("denoise", root, output) | {"strict": True}
    done = launch(command("ipv2_redcnn.py", "denoise", bench.network, keys))
    problems = []
    if done.returncode != 3:
        problems.append(f"exit status {done.returncode}, right is 3")
    if "Traceback" in done.stderr:
        problems.append("a traceback")
    if not (output / "A/scan.nii.gz").is_file():
        problems.append("the rest of the batch is not done")
    if "B/scan.nii.gz" not in done.stderr + done.stdout:
        problems.append("the volume is not named")
    return problems


def nothing_read(bench: Bench, folder: Path) -> list[str]:
    """A batch of which nothing can be read ends in 2, in words."""
    content("scan.nii.gz", b"hello")(folder / "in", bench.source)
    keys = batch_keys("denoise", folder / "in", folder / "out")
    done = launch(command("ipv2_redcnn.py", "denoise", bench.network, keys))
    problems = []
    if done.returncode != 2:
        problems.append(f"exit status {done.returncode}, right is 2")
    if "Traceback" in done.stderr or "error: " not in done.stderr:
        problems.append("no words, or a traceback")
    return problems


def two_at_once(bench: Bench, folder: Path) -> list[str]:
    """While one command works in a workdir, the next is refused; then it is free.

    The first is stopped in its work, so that it is surely there, and killed.
    """
    workdir, keys = folder / "work", train_keys(folder / "in", folder)
    pair_cases.good(folder / "in")
    words = command("ipv2_redcnn.py:smoke", "train", workdir, keys)
    first = subprocess.Popen(
        words,
        cwd=ROOT,
        env=_ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (workdir / "config.json").exists():
            if first.poll() is not None:
                return [f"the first command ended with {first.returncode}"]
            time.sleep(0.01)  # waiting for another process, not for a guess
        first.send_signal(signal.SIGSTOP)
        problems = refusal(run_keys("train", workdir, keys), "work")
    finally:
        first.kill()
        first.wait()
    return problems or completion(run_keys("train", workdir, keys))


COMMANDS = [
    Scenario("strict_ends_in_3", "denoise", strict, refused=False),
    Scenario("nothing_read_ends_in_2", "denoise", nothing_read),
    Scenario("two_at_once", "train", two_at_once),
]

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.folder_lock import hold_folder

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from common.folder_lock import hold_folder
with hold_folder(Path(sys.argv[1]), "--workdir"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_command_is_refused_at_once_and_lets_in_after_the_first(tmp_path):
    folder = tmp_path / "run"
    with hold_folder(folder, "--workdir"):
        with (
            pytest.raises(UserError, match="--workdir: another command is at work in"),
            hold_folder(folder, "--workdir"),
        ):
            pass
        # Another folder is free.
        with hold_folder(tmp_path / "other", "--workdir"):
            pass
    with hold_folder(folder, "--workdir"):
        pass


def test_the_lock_falls_with_a_killed_process(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError), hold_folder(tmp_path, "--workdir"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold_folder(tmp_path, "--workdir"):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"--workdir: .*cannot be written"),
        hold_folder(tmp_path / "file" / "run", "--workdir"),
    ):
        pass

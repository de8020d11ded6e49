"""One command holds a folder, and its end always frees the folder."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.errors import UserError
from common.folder_lock import LOCK, hold_folder

ROOT = Path(__file__).parents[2]
_HOLD = """
import sys
from pathlib import Path
from common.folder_lock import hold_folder
with hold_folder(Path(sys.argv[1]), "--workdir"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "out")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_at_once_and_told_by_whom(tmp_path, other):
    said = rf"--workdir: another command is at work in .*out \(process {other.pid} on"
    with (
        pytest.raises(UserError, match=said),
        hold_folder(tmp_path / "out", "--workdir"),
    ):
        pass
    assert (tmp_path / "out" / LOCK).exists()


def test_the_lock_falls_with_a_killed_process(tmp_path, other):
    other.kill()
    other.wait()
    assert (tmp_path / "out" / LOCK).exists()
    with hold_folder(tmp_path / "out", "--workdir"):
        now = (tmp_path / "out" / LOCK).read_text()
        assert now.startswith(f"process {os.getpid()} on ") and now.count("\n") == 1


def test_threads_of_one_process_are_two_commands(tmp_path):
    refused = []

    def second():
        with pytest.raises(UserError), hold_folder(tmp_path, "x"):
            pass
        refused.append(True)

    with hold_folder(tmp_path, "x"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused
    with hold_folder(tmp_path, "x"):
        pass


def test_nothing_is_left_but_what_came_in(tmp_path):
    with hold_folder(tmp_path / "a/empty", "task"):
        assert (tmp_path / "a/empty").is_dir()
    assert not (tmp_path / "a/empty").exists()
    with pytest.raises(KeyboardInterrupt), hold_folder(tmp_path / "full", "task"):
        (tmp_path / "full/x").touch()
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]
    (tmp_path / "there").mkdir()
    with hold_folder(tmp_path / "there", "task"):
        pass
    assert list((tmp_path / "there").iterdir()) == []


def test_a_lock_that_was_removed_meanwhile_is_not_taken_for_one(tmp_path, monkeypatch):
    """The holder removes its file between our opening and our locking it."""
    flock, calls = fcntl.flock, []

    def slow(descriptor, how):
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with hold_folder(tmp_path, "task"):
        assert len(calls) == 2
        with pytest.raises(UserError), hold_folder(tmp_path, "task"):
            pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def refuse(descriptor, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_folder(tmp_path, "task"):
        pass
    assert "its file system has no locks" in caplog.text


def test_a_folder_that_cannot_be_is_refused_with_words(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UserError, match=r"task: .*file.* cannot be written"):
            with hold_folder(folder, "task"):
                pass


def _put_file(path, mine):
    path.write_text("mine")


def _put_folder(path, mine):
    path.mkdir()


def _put_link(path, mine):
    path.symlink_to(mine)


def _put_dangling_link(path, mine):
    path.symlink_to(mine.with_name("nothing"))


def _put_pipe(path, mine):
    os.mkfifo(path)


@pytest.mark.parametrize(
    "put", [_put_file, _put_folder, _put_link, _put_dangling_link, _put_pipe]
)
def test_what_is_no_lock_of_ours_is_told_and_stays(tmp_path, put):
    mine, lock = tmp_path / "mine", tmp_path / "out" / LOCK
    mine.write_text("process 1 on host\n")
    lock.parent.mkdir()
    put(lock, mine)
    before = os.lstat(lock)
    with pytest.raises(UserError, match=r"task: .*\.lock is not the lock of a command"):
        with hold_folder(tmp_path / "out", "task"):
            pass
    after = os.lstat(lock)
    assert os.path.samestat(before, after) and before.st_size == after.st_size
    assert mine.read_text() == "process 1 on host\n"
    assert not mine.with_name("nothing").exists()


@pytest.mark.parametrize("left", ["", "process 17 on another.host\n"])
def test_the_lock_of_a_killed_command_is_taken_over(tmp_path, left):
    (tmp_path / LOCK).write_text(left)
    with hold_folder(tmp_path, "task"):
        pass
    assert not (tmp_path / LOCK).exists()

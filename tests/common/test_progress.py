import io
import sys

from common.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_elsewhere(capsys):
    with Progress("train", 4, "steps", line_seconds=0) as progress:
        for step in range(4):
            progress.update(note=f"loss {step}")
    shown = capsys.readouterr().err
    lines = shown.splitlines()
    assert len(lines) == 5 and "\r" not in shown
    assert lines[0].startswith("train: 1/4 steps, ")
    assert lines[-1].endswith("loss 3")
    assert "00:00 left" in lines[-1]


def test_lines_are_rare(capsys):
    with Progress("train", 100, "steps", line_seconds=60) as progress:
        for _ in range(100):
            progress.update()
    assert len(capsys.readouterr().err.splitlines()) == 1  # the last one


def test_a_bar_on_a_terminal(monkeypatch):
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("train", 4, "steps", done=2) as progress:
        progress.update(2, note="loss 1")
    assert "\r" in stream.getvalue()
    assert "4/4" in stream.getvalue() and "loss 1" in stream.getvalue()


class _Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch):
        self.seconds = 1000.0
        monkeypatch.setattr("common.progress.time.monotonic", lambda: self.seconds)
        monkeypatch.setattr("tqdm.std.time", lambda: self.seconds)


def test_rate_does_not_count_what_was_done_before(monkeypatch):
    clock = _Clock(monkeypatch)
    with Progress("x", 12, "steps", done=9) as progress:
        assert progress.rate == 0
        progress.update()
        assert progress.rate == 0
        clock.seconds += 2
        progress.update()
        assert progress.rate == 0.5


def test_the_time_left_leaves_compilation_out(monkeypatch, capsys):
    clock = _Clock(monkeypatch)
    with Progress("train", 100, "steps", line_seconds=0) as progress:
        clock.seconds += 60  # the first step is compiled
        progress.update()
        clock.seconds += 2
        progress.update()
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first == "train: 1/100 steps"
    assert second == "train: 2/100 steps, 0.5/s, 03:16 left"


def test_the_bar_s_time_left_leaves_compilation_out(monkeypatch):
    clock, stream = _Clock(monkeypatch), _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("train", 100, "steps") as progress:
        clock.seconds += 60
        progress.update()
        clock.seconds += 2
        progress.update()
        shown = stream.getvalue().split("\r")[-1]
    assert "2/100" in shown and "00:02<03:16" in shown

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


def test_rate_does_not_count_what_was_done_before():
    with Progress("x", 10, "steps", done=9) as progress:
        assert progress.rate == 0
        progress.update()
        assert progress.rate > 0

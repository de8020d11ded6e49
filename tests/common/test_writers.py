import json

from common.writers import MetricsWriter


def _lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_lines_hold_step_and_scalars(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as writer:
        writer.write(1, {"train/loss": 0.5})
        writer.write(2, {"train/loss": 0.25})
    assert _lines(tmp_path) == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "train/loss": 0.25},
    ]
    assert list((tmp_path / "tensorboard").iterdir())


def test_resumption_drops_what_lies_beyond(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"train/loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tra')  # what a killed process leaves
    with MetricsWriter(tmp_path, after_step=2) as writer:
        writer.write(3, {"train/loss": 30})
    assert [(x["step"], x["train/loss"]) for x in _lines(tmp_path)] == [
        (1, 1),
        (2, 2),
        (3, 30),
    ]

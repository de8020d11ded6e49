import dataclasses
import hashlib
import json

import numpy as np
import pytest

from acq.layers.float import FloatLayers
from acq.tasks import evaluate as evaluate_task
from acq.tasks.evaluate import evaluate_run
from acq.tasks.quantize import quantize_run
from acq.teacher.identity import hold_teacher, refuse_replaced_weights
from acq.teacher.settings import stated_record
from common.errors import UserError
from common.workdir import RECORDS, anything_computed
from tests.acq import foreign_state_dicts as theirs
from tests.acq.own_network import PlainNet
from tests.acq.quantize_config import CLASSES, make_config
from tests.acq.teacher_config import teacher_settings


def _record(sha256, source="w.pth"):
    record = stated_record(teacher_settings())
    return dataclasses.replace(record, source=source, sha256=sha256)


def _compute(workdir):
    (workdir / "metrics.jsonl").write_text("{}\n")


def test_a_run_goes_on_with_the_teacher_it_began_with(tmp_path):
    hold_teacher(_record("a" * 64), tmp_path)
    written = (tmp_path / "teacher.json").read_text()
    assert json.loads(written) == {
        "name": "resnet8",
        "source": "w.pth",
        "sha256": "a" * 64,
    }
    _compute(tmp_path)
    # The same file, moved.
    hold_teacher(_record("a" * 64, "moved/w.pth"), tmp_path)
    assert (tmp_path / "teacher.json").read_text() == written
    with pytest.raises(UserError, match=r"of w\.pth, had .* aaaa.* now have bbbb"):
        hold_teacher(_record("b" * 64), tmp_path)
    assert (tmp_path / "teacher.json").read_text() == written


def test_a_run_that_computed_nothing_binds_no_teacher(tmp_path):
    hold_teacher(_record("a" * 64), tmp_path)
    assert "teacher.json" in RECORDS and not anything_computed(tmp_path)
    hold_teacher(_record("b" * 64), tmp_path)
    assert json.loads((tmp_path / "teacher.json").read_text())["sha256"] == "b" * 64


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": "a"}', '{"sha256": 3}'])
def test_what_is_no_teacher_of_a_run_is_refused(tmp_path, content):
    _compute(tmp_path)
    (tmp_path / "teacher.json").write_text(content)
    with pytest.raises(UserError, match=r"teacher\.json: damaged"):
        hold_teacher(_record("a" * 64), tmp_path)


def test_a_complete_run_notices_replaced_weights(tmp_path):
    weights, workdir = tmp_path / "w.pth", tmp_path / "run"
    workdir.mkdir()
    weights.write_bytes(b"first")
    settings = teacher_settings(weights=str(weights))
    refuse_replaced_weights(settings, workdir)
    hold_teacher(_record(hashlib.sha256(b"first").hexdigest()), workdir)
    _compute(workdir)
    refuse_replaced_weights(settings, workdir)
    weights.write_bytes(b"second")
    with pytest.raises(UserError, match="holds a run with another teacher"):
        refuse_replaced_weights(settings, workdir)
    # The hub's are not fetched again, and a random teacher has none.
    for key, value in (("weights", ""), ("source", "random")):
        refuse_replaced_weights(dataclasses.replace(settings, **{key: value}), workdir)


@pytest.mark.slow
def test_a_run_continues_with_its_weights_alone(tmp_path):
    """The file is replaced after a complete run, and before a run resumes."""
    weights, workdir = tmp_path / "w.npz", tmp_path / "run"
    network = PlainNet(FloatLayers(), CLASSES)
    names = {name: name for i in range(3) for name in (f"conv{i}", f"bn{i}")}
    names["head"] = "head"
    tensors = theirs.tensors_of(theirs.random_variables(network), names.items())
    np.savez(weights, **tensors)
    config = make_config(tmp_path)
    config.teacher.source = "weights"
    config.teacher.weights = str(weights)
    quantize_run(config, workdir)
    known = json.loads((workdir / "teacher.json").read_text())
    assert known["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    tensors["head.bias"] = tensors["head.bias"] + 1
    np.savez(weights, **tensors)
    with pytest.raises(UserError, match="a run with another teacher"):
        evaluate_run(config, workdir)
    assert not (workdir / "evaluation.json").exists()
    for _ in range(2):
        with pytest.raises(UserError, match="a run with another teacher"):
            quantize_run(config, workdir)
        (workdir / "results.json").unlink(missing_ok=True)


def test_evaluate_notices_replaced_weights_before_it_opens_them(tmp_path, monkeypatch):
    weights, workdir = tmp_path / "w.npz", tmp_path / "run"
    workdir.mkdir()
    weights.write_bytes(b"second")
    hold_teacher(_record(hashlib.sha256(b"first").hexdigest()), workdir)
    _compute(workdir)
    config = make_config(tmp_path)
    config.teacher.source, config.teacher.weights = "weights", str(weights)
    monkeypatch.setattr(evaluate_task, "open_teacher", None)
    with pytest.raises(UserError, match="holds a run with another teacher"):
        evaluate_run(config, workdir)

"""The run as a whole, on a network of one's own, with untrained weights."""

import json
import os
import signal

import huggingface_hub
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from acq.export import load_quantized
from acq.quantization import bit_budget, phases
from acq.quantization.states import quantize_state
from acq.quantization.student_layers import quant_layers
from acq.samples.draws import Draws
from acq.tasks import quantize as quantize_task
from acq.tasks.evaluate import evaluate_run
from acq.tasks.export import export_run
from acq.tasks.quantize import quantize_run
from acq.tasks.settings import task_settings
from acq.teacher.opening import open_teacher
from common.checkpoint import Checkpoints, load_manifest
from common.config import to_steps
from common.errors import Interrupted, UserError
from common.folder_lock import hold_folder
from tests.acq.quantize_config import CLASSES, make_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    config = make_config(folder)
    return config, folder / "run", quantize_run(config, folder / "run")


@pytest.mark.slow
def test_results_say_what_was_measured(whole):
    _, workdir, results = whole
    assert results == json.loads((workdir / "results.json").read_text())
    assert results["bits"] == {"weight": 4, "activation": 4, "other": 32}
    assert results["n"] == 10 and results["seed"] == 0 and results["steps"] == 3
    assert set(results["baselines"]) == {"noise", "untrained", "real"}
    quantized = results["quantized"]
    assert quantized["best_top1"] >= quantized["top1"] == 10 * quantized["correct"]
    assert 0 <= quantized["agreement"] <= 100 and quantized["kl"] >= 0
    assert results["seconds"] > 0 and results["seconds_per_step"] > 0
    assert "samples/center_r2" in results["samples"]
    for entry in (results["teacher"], *results["baselines"].values()):
        # Both count the same images.
        more = quantized["correct"] - entry["correct"]
        counts = quantized if entry is results["teacher"] else entry
        lost = counts.get("only_baseline_right", counts.get("only_teacher_right"))
        assert more == counts["only_quantized_right"] - lost
    said = f"W4A4 gets {quantized['top1']:.2f} % of 10 images right"
    assert said in (workdir / "report.html").read_text()


@pytest.mark.slow
def test_the_export_is_integers_and_gives_the_students_logits(whole):
    config, workdir, _ = whole
    settings = task_settings(config)
    run = settings.quantization
    teacher = open_teacher(settings.teacher, workdir, seed=run.seed)
    loaded = load_quantized(workdir / "export")
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = quantize_state(run, teacher)
        _, state, _ = checkpoints.restore(state)
    student = teacher.with_layers(quant_layers(run.quantizer, teacher))
    variables = {
        **state.student.params,
        "batch_stats": teacher.variables["batch_stats"],
    }
    x = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)
    ours, _ = jax.jit(student.apply)(variables, x)
    theirs, _ = jax.jit(loaded.network.apply)(loaded.variables, x)
    np.testing.assert_array_equal(ours, theirs)
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(loaded.variables)
        if path[-1].key == "kernel"
    ]
    assert len(kernels) == 4
    assert {k.dtype for k in kernels} <= {np.dtype(np.int8), np.dtype(np.uint8)}


@pytest.mark.slow
def test_files_for_other_software_are_those_of_task_export(whole):
    config, workdir, results = whole
    described = load_manifest(workdir / "export")["deployment"]
    assert described["accuracy"]["integer_ready"] == results["integer_ready"]["top1"]
    assert export_run(config, workdir) == described
    assert "quantized, all integers" in (workdir / "report.html").read_text()


@pytest.mark.slow
def test_the_same_command_again_says_that_it_is_complete(whole, monkeypatch):
    config, workdir, results = whole
    monkeypatch.setattr(quantize_task, "open_teacher", None)
    assert quantize_run(config, workdir) == results


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"export/weights": "mine"}, "not of a run: .*export/weights lies"),
        ({"config.json": None, "results.json": "{}"}, "holds a run of another task"),
        ({"config.json": None, "results.json": "{"}, "damaged"),
    ],
)
def test_what_is_of_no_quantization_is_refused_before_any_work(
    tmp_path, monkeypatch, files, said
):
    config, work = make_config(tmp_path), tmp_path / "work"
    monkeypatch.setattr(quantize_task, "open_teacher", None)
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text or config.to_json_best_effort())
    with pytest.raises(UserError, match=said):
        quantize_run(config, work)


@pytest.mark.slow
def test_evaluate_tells_teacher_and_export(whole):
    config, workdir, results = whole
    report = (workdir / "report.html").read_bytes()
    found = evaluate_run(config, workdir)
    assert found["teacher"]["correct"] == results["teacher"]["correct"]
    for key, value in found["quantized"].items():
        assert value == results["quantized"][key]
    # Its page is beside the run's, which stays.
    said = f"W4A4 gets {found['quantized']['top1']:.2f} % of 10 images right"
    assert said in (workdir / "evaluation.html").read_text()
    assert (workdir / "report.html").read_bytes() == report


@pytest.mark.slow
def test_evaluate_needs_data_and_takes_a_teacher_alone(tmp_path):
    config = make_config(tmp_path)
    assert set(evaluate_run(config, tmp_path / "run")) == {"n", "teacher"}
    page = (tmp_path / "run" / "evaluation.html").read_text()
    assert "The float teacher gets" in page
    config.eval.path = ""
    with pytest.raises(UserError, match=r"config\.eval\.path"):
        evaluate_run(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_run_stopped_in_either_phase_ends_in_the_same_export(
    whole, tmp_path, monkeypatch, stop_at
):
    config, workdir, _ = whole
    drawn = []
    monkeypatch.setattr(phases, "Draws", _stopping(stop_at, drawn))
    with pytest.raises(Interrupted):
        quantize_run(config, tmp_path / "cut")
    quantize_run(config, tmp_path / "cut")
    assert len(drawn) == 6
    hashes = [
        load_manifest(w / "export")["sha256"] for w in (workdir, tmp_path / "cut")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
@pytest.mark.long
def test_a_stopped_run_with_a_budget_goes_on_with_its_bits(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    config.quantizer.budget_mb = 0.0035
    whole = quantize_run(config, tmp_path / "whole")
    monkeypatch.setattr(phases, "Draws", _stopping(2, []))
    with pytest.raises(Interrupted):
        quantize_run(config, tmp_path / "cut")
    monkeypatch.delattr(bit_budget, "measure_sensitivity")  # is not measured again
    cut = quantize_run(config, tmp_path / "cut")
    assert cut["layer_bits"] == whole["layer_bits"]
    assert (
        len(
            {load_manifest(tmp_path / w / "export")["sha256"] for w in ("whole", "cut")}
        )
        == 1
    )


def _one_loop(folder):
    """As published: in one loop, in which the student waits for three steps."""
    config = make_config(folder)
    config.train.one_loop = config.generator.learns = True
    config.quantizer.update(
        range_source="observed", observe="3 steps", gradient="identity"
    )
    return config


@pytest.mark.slow
@pytest.mark.long
def test_in_one_loop_the_student_waits_and_a_stopped_run_ends_the_same(
    tmp_path, monkeypatch
):
    config, workdir = _one_loop(tmp_path), tmp_path / "run"
    results = quantize_run(config, workdir)
    assert results["steps"] == 3 and not (workdir / "generator").exists()
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    seen = {}
    for line in lines:
        seen.setdefault(line["step"], {}).update(line)
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    assert all("train/generator_loss" in values for values in seen.values())
    # Until it learns, it is no student.
    assert [step for step in seen if "val/top1" in seen[step]] == [4, 5, 6]
    assert "W4A4 gets" in (workdir / "report.html").read_text()
    for stop_at in (2, 5):
        again = tmp_path / f"cut{stop_at}"
        with monkeypatch.context() as patch:
            patch.setattr(phases, "Draws", _stopping(stop_at, []))
            with pytest.raises(Interrupted):
                quantize_run(config, again)
        quantize_run(config, again)
        one, other = (load_manifest(w / "export")["sha256"] for w in (workdir, again))
        assert one == other


def _stopping(stop_at, drawn):
    """Batches of which one stops the run; each adds to `drawn`."""

    class Stopping(Draws):
        def __next__(self):
            drawn.append(None)
            if len(drawn) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    return Stopping


@pytest.mark.slow
def test_commands_that_failed_at_the_door_do_not_bind_the_next(whole, tmp_path):
    _, other, _ = whole
    config, workdir = make_config(tmp_path), tmp_path / "run"
    config.teacher.source = "weights"
    with pytest.raises(UserError, match=r"config\.teacher\.weights: needed"):
        quantize_run(config, workdir)
    config.teacher.source = "random"
    config.generator.path = str(tmp_path)
    with pytest.raises(UserError, match=r"config\.generator\.path: .* no checkpoint"):
        quantize_run(config, workdir)
    assert not (workdir / "config.json").exists()
    config.generator.path = str(other / "generator")
    config.baselines.run = ()
    before = _listing(other)
    assert quantize_run(config, workdir)["steps"] == 3
    # Another run's generator is read and left as it is.
    assert _listing(other) == before
    config.seed = 1
    with pytest.raises(UserError, match=r"config\.seed: the run has 0"):
        quantize_run(config, workdir)


def _listing(folder):
    return [
        (str(p), p.stat().st_mtime_ns) for p in [folder, *sorted(folder.rglob("*"))]
    ]


@pytest.mark.slow
def test_after_a_hub_out_of_reach_the_corrected_command_works_in_the_workdir(
    tmp_path, monkeypatch
):
    def download(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    config, workdir = make_config(tmp_path), tmp_path / "run"
    config.teacher.update(source="weights", hub_repo="a/b", hub_file="w.npz")
    with pytest.raises(UserError, match=r"--config\.teacher\.weights=FOLDER/w\.npz$"):
        quantize_run(config, workdir)
    assert not (workdir / "config.json").exists()
    settings = task_settings(make_config(tmp_path)).teacher
    variables = open_teacher(settings, workdir, seed=1).variables
    tensors = flatten_dict(variables, sep="/")
    tensors = {name: np.asarray(leaf) + 0.1 for name, leaf in tensors.items()}
    np.savez(tmp_path / "w.npz", **tensors)
    config.teacher.weights = str(tmp_path / "w.npz")
    assert quantize_run(config, workdir)["n"] == 10


@pytest.mark.parametrize("task", [quantize_run, evaluate_run])
def test_a_second_command_in_the_workdir_is_refused(tmp_path, task):
    with (
        hold_folder(tmp_path / "run", "another"),
        pytest.raises(UserError, match="another command is at work in"),
    ):
        task(make_config(tmp_path), tmp_path / "run")


@pytest.mark.slow
def test_without_data_it_quantizes_and_reports_the_agreement(tmp_path, caplog):
    config = make_config(tmp_path)
    config.eval.path = ""
    config.generator.learns = True
    config.quantizer.range_source = "observed"
    with caplog.at_level("INFO", logger="absl"):
        results = quantize_run(config, tmp_path / "run")
    alone, steps = (
        to_steps(config[section][key], 1, key)
        for section, key in (("generator", "warmup"), ("train", "duration"))
    )
    assert (
        f"{alone + steps} steps of {config.train.batch_size} samples: {alone} of the "
        f"generator alone, then {steps} of the student and the generator"
    ) in caplog.messages
    assert sum(" take about " in line for line in caplog.messages) == 2
    assert "n" not in results and 0 <= results["agreement_on_samples"] <= 100
    assert "top-1 is unknown" in (tmp_path / "run" / "report.html").read_text()
    assert load_quantized(tmp_path / "run" / "export").record.classes == CLASSES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantizer": {"weight_bits": 9}}, "quantizer.weight_bits: got 9"),
        ({"quantizer": {"activation_bits": 1}}, "quantizer.activation_bits: got 1"),
        ({"train": {"batch_size": 6}}, "train.batch_size"),
        ({"teacher": {"source": "hub"}}, "teacher.source"),
        ({"eval": {"path": "nowhere.npz"}}, "eval.path"),
        ({"teacher": {"classes": 2}}, "labels from 0 to 2"),
        ({"teacher": {"image_size": 32}}, "images are"),
    ],
)
def test_bad_input_is_told(tmp_path, change, said):
    config = make_config(tmp_path)
    for section, values in change.items():
        config[section].update(values)
    with pytest.raises(UserError, match=said):
        quantize_run(config, tmp_path / "run")

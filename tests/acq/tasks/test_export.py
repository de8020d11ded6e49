"""Files for other software, of a run that ended where onnx was missing."""

import hashlib
import json
import shutil

import numpy as np
import pytest

import acq
from acq.export import load_quantized
from acq.layers.float import FloatLayers
from acq.tasks import quantize as quantize_task
from acq.tasks import results as results_module
from acq.tasks.deployment import stated_accuracy
from acq.tasks.export import export_run
from acq.tasks.quantize import quantize_run
from acq.tasks.registry import TASKS
from common.errors import UserError
from common.onnx import package
from tests.acq.deploy.small_networks import classifier, classifier_of, logits
from tests.acq.deploy.test_network_graph import OddNet
from tests.acq.quantize_config import CLASSES, make_config

FILES = (
    "model.onnx",
    "model_float.onnx",
    "model.packed.safetensors",
    "model.stablehlo",
)


@pytest.fixture(scope="module")
def without_onnx(tmp_path_factory):
    """A run's config, folder, results and log."""
    folder, said = tmp_path_factory.mktemp("without"), []
    config = make_config(folder)
    config.baselines.run = ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_module, "has_onnx", lambda: False)
        patch.setattr(
            results_module.logging,
            "info",
            lambda text, *args: said.append(f"{text} {args}"),
        )
        results = quantize_run(config, folder / "run")
    return config, folder / "run", results, said


@pytest.fixture(scope="module")
def exported(without_onnx):
    config, workdir, results, _ = without_onnx
    before = (workdir / "export/manifest.json").read_text()
    description = export_run(config, workdir)
    return config, workdir, results, json.loads(before), description


@pytest.mark.slow
def test_a_run_without_onnx_ends_with_the_command_that_installs_it(without_onnx):
    _, _, results, said = without_onnx
    (line,) = [text for text in said if "No ONNX file" in text]
    assert "pip install -r requirements-export.txt" in line
    assert "--task export" in line
    # The network that the files will hold is measured all the same.
    assert results["integer_ready"].keys() == {"top1", "correct", "agreement", "kl"}


@pytest.mark.slow
def test_export_writes_the_files_and_describes_them(exported):
    _, workdir, results, before, description = exported
    manifest = json.loads((workdir / "export/manifest.json").read_text())
    assert manifest.pop("deployment") == description
    assert manifest == before  # the export itself stays
    assert set(description["files"]) == set(FILES)
    for name, found in description["files"].items():
        content = (workdir / "export" / name).read_bytes()
        assert found["sha256"] == hashlib.sha256(content).hexdigest()
        assert found["bytes"] == len(content)
    assert description["input"]["onnx_shape"] == ["batch", 3, 16, 16]
    assert description["input"]["range"] == [0, 1]
    assert description["output"] == {"name": "logits", "classes": CLASSES}
    assert description["commit"] == before["commit"]
    assert description["added_quantizers"] == ["quant_input", "quant_pooled"]
    accuracy = description["accuracy"]
    assert accuracy == stated_accuracy(results)
    assert accuracy["images"] == 10


@pytest.mark.slow
def test_the_files_are_one_network_and_the_export_is_still_the_students(exported):
    config, workdir, _, _, description = exported
    folder = workdir / "export"
    packed = acq.load_packed(folder / "model.packed.safetensors")
    with np.load(config.eval.path) as data:
        images = np.float32(data["images"] / 255.0)
    ours = np.asarray(packed(images))
    theirs = logits((folder / "model.onnx").read_bytes(), images)
    np.testing.assert_array_equal(theirs.argmax(1), ours.argmax(1))
    np.testing.assert_allclose(theirs, ours, atol=np.ptp(ours) / 255)
    as_trained = load_quantized(folder)
    assert as_trained.manifest["deployment"] == description
    assert "quant_input" not in as_trained.variables["integers"]
    assert "quant_input" in packed.variables["integers"]


@pytest.mark.slow
def test_a_copy_of_the_export_does_not_describe_files_that_it_lacks(exported, tmp_path):
    _, workdir, *_ = exported
    load_quantized(workdir / "export").save(tmp_path)
    assert "deployment" not in load_quantized(tmp_path).manifest


@pytest.mark.slow
def test_export_again_writes_the_same_files(exported):
    config, workdir, _, _, description = exported
    (workdir / "export/model.onnx").write_bytes(b"older")
    assert export_run(config, workdir) == description
    assert (workdir / "export/model.onnx").stat().st_size > 1000


@pytest.mark.slow
def test_without_the_generator_missing_ranges_are_refused(without_onnx, tmp_path):
    config, workdir, *_ = without_onnx
    shutil.copytree(workdir / "export", tmp_path / "export")
    with pytest.raises(UserError, match=r"checkpoints: holds no.*other_bits=8"):
        export_run(config, tmp_path)


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    config = make_config(tmp_path)
    with pytest.raises(UserError, match=r"export: no exported network here"):
        export_run(config, tmp_path / "none")


def test_without_onnx_the_task_says_so_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "has_onnx", lambda: False)
    with pytest.raises(UserError, match=r"pip install -r requirements-export\.txt"):
        TASKS["export"](make_config(tmp_path), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_network_that_cannot_be_exported_is_told_before_any_training(caplog):
    teacher = classifier_of(OddNet(FloatLayers(), 5, "sin"), "odd")
    quantize_task._say_if_not_exportable(teacher)
    assert "There will be no ONNX file: the operation 'sin'" in caplog.text
    caplog.clear()
    quantize_task._say_if_not_exportable(classifier("own"))
    assert not caplog.text

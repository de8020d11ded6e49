"""Task quantize_denoiser, on a small network with its own opener."""

import json
import shutil

import numpy as np
import pytest

from acq.tasks.denoiser_settings import denoiser_settings
from acq.tasks.quantize_denoiser import quantize_denoiser
from acq.tasks.registry import TASKS
from common.checkpoint import load_manifest
from common.errors import UserError
from configs.acq_denoiser import get_config

HERE = "tests.acq.denoisers.small_images"


def small_config(variant="w4a4,smoke"):
    config = get_config(variant)
    config.teacher.open = f"{HERE}:opened"
    config.generator.image_size = 8
    config.baselines.run = ("noise", "statistics", "generated", "real")
    return config


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("quantizer.weight_bits", 9, r"quantizer\.weight_bits: got 9, accepted: a who"),
        ("quantizer.ranges", "patients", r"ranges: got 'patients', .*'noisy_phantom'"),
        ("teacher.open", "opener", r"teacher\.open: got 'opener', .*package\.module:f"),
        ("teacher.export", "nowhere", r"teacher\.export: got 'nowhere', .*a path that"),
        ("generator.center", "none", r"center_weight: got 0\.2 with generator\.center"),
        ("student.duration", "2 epochs", r"student\.duration: .* there are no epochs"),
        ("train.batch_size", 7, r"train\.batch_size: got 7, accepted: an even number"),
        (
            "baselines.run",
            ("good",),
            r"baselines\.run: got \('good',\), accepted: \(\)",
        ),
        ("judge.embedded", (), r"judge\.embedded: got \(\), accepted: a tuple of some"),
    ],
)
def test_wrong_values_are_named_with_those_that_are_accepted(key, value, said):
    config = get_config("smoke")
    section, name = key.split(".")
    with config.ignore_type():
        config[section][name] = value
    with pytest.raises(UserError, match=said):
        denoiser_settings(config)


def test_a_student_or_generator_without_terms_is_refused():
    config = get_config("gdfq,smoke")
    config.generator.statistics_weight = 0.0
    config.student.update({"output_weight": 0.0, "hint_weight": 0.0})
    with pytest.raises(UserError, match=r"2 problems(.|\n)*all 0(.|\n)*learns nothing"):
        denoiser_settings(config)


@pytest.mark.parametrize("task", ["quantize", "evaluate"])
def test_tasks_of_classifiers_refuse_the_recipe(task, tmp_path):
    with pytest.raises(UserError, match="no classifier; accepted: quantize_denoiser"):
        TASKS[task](get_config("smoke"), tmp_path)


@pytest.mark.parametrize(
    ("opener", "said"),
    [
        (f"{HERE}:nothing", "has no function 'nothing'; accepted: one that returns"),
        ("no_such_module:f", "config.teacher.open: no module 'no_such_module'"),
    ],
)
def test_a_function_that_is_not_there_is_named(opener, said, tmp_path):
    config = small_config()
    config.teacher.open = opener
    with pytest.raises(UserError, match=said):
        quantize_denoiser(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("export", "ranges", "said"),
    [
        ("plain", "generated", "'generated' with residual, but it has no batch norm"),
        ("plain", "statistics", r"accepted: noise, phantom"),
        ("", "real", "but the images to judge on .* have none; accepted: generated, "),
    ],
)
def test_ranges_that_the_network_cannot_have_are_refused(
    export, ranges, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    config = small_config()
    config.teacher.export = export
    config.quantizer.ranges = ranges
    with pytest.raises(UserError, match=said):
        quantize_denoiser(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("generator.image_size", 10, r"image_size: got 10, .*a multiple of 4"),
        ("generator.latent", 3, r"latent: got 3, accepted: at least 6"),
        ("train.batch_size", 12, r"batch_size: got 12, accepted: a multiple of 8"),
    ],
)
def test_what_does_not_fit_network_or_devices_leaves_the_folder_free(
    key, value, said, tmp_path
):
    config = small_config()
    section, name = key.split(".")
    config[section][name] = value
    with pytest.raises(UserError, match=said):
        quantize_denoiser(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_a_run_writes_what_it_says_and_goes_on_from_its_checkpoints(tmp_path):
    config, run = small_config(), tmp_path / "run"
    results = quantize_denoiser(config, run)
    rows = results["judged"]["noise"]
    # The data have no images called real.
    assert list(rows) == ["float", "noise", "statistics", "generated", "quantized"]
    assert rows["float"]["rms"] == 0 < rows["quantized"]["rms"]
    assert json.loads((run / "results.json").read_text()) == results
    page = (run / "report.html").read_text()
    assert "no PSNR was measured" in page and "Images of the generator" in page
    # Two steps of a generator teach it little.
    (complaint,) = results["warnings"]
    assert "config.generator.first_bound=4" in complaint and "unlike" in page
    said = load_manifest(run / "export")["quantized"]
    assert said["weight_bits"] == 4 and said["first_last_bits"] == 8
    assert said["ranges_in_words"] == "images of the generator, without data"
    files = [run / "export" / name for name in ("model.onnx", "model_float.onnx")]
    assert [file.read_text() for file in files] == ["first middle last", "float"]
    assert quantize_denoiser(config, run) == results

    for file in files:
        file.unlink()
    assert TASKS["export"](config, run) == said
    assert [file.read_text() for file in files] == ["first middle last", "float"]
    config.teacher.export = "."
    with pytest.raises(UserError, match=r"not the quantized network of .*export='\.'"):
        TASKS["export"](config, run)
    config.teacher.export = ""

    (run / "results.json").unlink()
    shutil.rmtree(run / "export")
    again = quantize_denoiser(config, run)
    assert again["judged"] == results["judged"]


@pytest.mark.slow
def test_other_ranges_are_rounding_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    config = small_config()
    config.teacher.export = "plain"
    config.quantizer.ranges = "phantom"
    results = quantize_denoiser(config, tmp_path / "run")
    assert results["student_steps"] == results["generator_steps"] == 0
    assert results["ranges_in_words"] == "noise, for tests"
    assert not (tmp_path / "run" / "checkpoints").exists()
    rows = results["judged"]["noise"]
    assert np.isfinite(rows["quantized"]["rms"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "noise, for tests" in page and "Images of the generator" not in page

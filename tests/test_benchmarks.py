"""Every benchmark runs: with `--smoke`, and tiny data."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(p.stem for p in (Path(__file__).parent / "benchmarks").glob("*.py"))
# They take more than some seconds even so: nearly all of it is compilation.
LONG = {
    *("acq_budget", "acq_pairs", "acq_real_images", "acq_table", "calibration"),
    *("denoise_onnx", "denoiser_integers", "denoiser_layers", "denoiser_quantization"),
    *("denoiser_step", "export_table", "export_trained", "flow_steps", "lung_masks"),
    *("projection", "purification_opencv", "quantize_step"),
}


def test_long_benchmarks_are_benchmarks():
    assert set(BENCHMARKS) > LONG


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in LONG else ())
        for name in BENCHMARKS
    ],
)
def test_a_benchmark_goes_through_in_seconds(name, capsys):
    benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    assert not benchmark.main(["--smoke"])
    assert capsys.readouterr().out.strip()

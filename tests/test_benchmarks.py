"""Every benchmark runs: with `--smoke`, and tiny data."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(p.stem for p in (Path(__file__).parent / "benchmarks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_goes_through_in_seconds(name, capsys):
    benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    assert not benchmark.main(["--smoke"])
    assert capsys.readouterr().out.strip()

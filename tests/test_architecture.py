"""Imports run one way: kernels, then models and losses, then training, then tasks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"acq", "common", "configs", "ipv2"}
FILES = [
    path.relative_to(ROOT)
    for package in sorted(PACKAGES)
    for path in sorted((ROOT / package).rglob("*.py"))
]
# Array operations that networks of both packages are made of.
CONVOLUTIONS = {"common.convolution", "common.depthwise", "common.resampling"}
# What a file may import of ours, by the longest matching start of its path.
ALLOWED = {
    "common": {"common"},
    "common/convolution.py": set(),
    "common/depthwise.py": set(),
    "common/resampling.py": {"common.convolution"},
    "ipv2": {"common", "ipv2"},
    "ipv2/__init__.py": {"ipv2.api"},
    "ipv2/api": {
        *("common", "ipv2.api", "ipv2.ct_io", "ipv2.deploy", "ipv2.inference"),
        *("ipv2.kernels", "ipv2.purification", "ipv2.training", "ipv2.volumes"),
    },
    "ipv2/kernels": {"ipv2.kernels"} | CONVOLUTIONS,
    "ipv2/models": {"ipv2.kernels", "ipv2.models"} | CONVOLUTIONS,
    "ipv2/models/own_network.py": {"common.errors", "common.own_code"},
    "ipv2/models/published_ffm.py": {
        *("common.errors", "common.typing", "common.weights.wrappers"),
    },
    "ipv2/ct_io": {"common", "ipv2.ct_io"},
    "ipv2/calibration": {
        *("common", "ipv2.calibration", "ipv2.kernels"),
        *("ipv2.measures.noise_analysis",),
    },
    "ipv2/purification": {"ipv2.kernels", "ipv2.purification"},
    "ipv2/measures": {"common", "ipv2.kernels", "ipv2.measures"},
    "ipv2/report": {"common", "ipv2.measures", "ipv2.report"},
    "ipv2/phantom": {"ipv2.phantom"},
    "ipv2/jobs": {"common", "ipv2.ct_io", "ipv2.jobs"},
    "ipv2/training/losses.py": {"ipv2.kernels"},
    "ipv2/training": {
        *("common", "ipv2.kernels", "ipv2.models"),
        *("ipv2.purification", "ipv2.training"),
    },
    "ipv2/inference": {
        *("common", "ipv2.ct_io", "ipv2.inference", "ipv2.kernels"),
        *("ipv2.models", "ipv2.training"),
    },
    "ipv2/deploy": {"common", "ipv2.deploy", "ipv2.inference", "ipv2.training"},
    "ipv2/volumes": {
        *("common", "ipv2.ct_io", "ipv2.inference", "ipv2.kernels"),
        *("ipv2.measures.noise_level", "ipv2.purification", "ipv2.training"),
        "ipv2.volumes",
    },
    "ipv2/datasets": {
        *("common", "ipv2.ct_io", "ipv2.datasets", "ipv2.kernels"),
        *("ipv2.phantom",),
    },
    "acq": {"acq", "common"},
    "acq/kernels": {"acq.kernels"} | CONVOLUTIONS,
    "acq/layers/operations.py": {"acq.kernels"} | CONVOLUTIONS,
    "acq/layers/float.py": {"acq.layers.operations"},
    "acq/layers": {"acq.kernels", "acq.layers", "common.errors", "common.typing"},
    "acq/models": {"acq.kernels", "acq.layers", "acq.models", "common.errors"}
    | CONVOLUTIONS,
    "acq/samples": {
        *("acq.classifier", "acq.kernels", "acq.layers", "acq.samples", "common"),
    },
    "acq/training/losses.py": {"acq.kernels"},
    "acq/training": {
        *("acq.kernels", "acq.layers", "acq.samples", "acq.training", "common"),
    },
    "acq/weights": {"acq.weights", "common"},
    "acq/datasets": {"acq.classifier", "acq.datasets", "common"},
    "acq/teacher": {
        *("acq.accuracy", "acq.classifier", "acq.datasets", "acq.layers", "acq.models"),
        *("acq.training.losses",),
        *("acq.teacher", "acq.training.step_parts", "acq.weights", "common"),
    },
    "acq/deploy": {
        *("acq.classifier", "acq.deploy", "acq.export", "acq.kernels", "acq.layers"),
        "common",
    },
    "acq/quantization": {
        *("acq.classifier", "acq.diagnosis", "acq.export", "acq.kernels", "acq.layers"),
        *("acq.quantization", "acq.samples", "acq.teacher", "acq.training", "common"),
    },
    "acq/denoisers": {
        *("acq.classifier", "acq.denoisers", "acq.kernels", "acq.layers"),
        *("acq.quantization.optimizer", "acq.quantization.phases", "acq.samples"),
        *("acq.training", "common"),
    },
    "acq/diagnosis": {
        *("acq.classifier", "acq.diagnosis", "acq.kernels", "acq.samples"),
        *("acq.training", "common"),
    },
    "acq/report": {
        *("acq.classifier", "acq.diagnosis", "acq.export", "acq.kernels", "acq.layers"),
        *("acq.report", "common"),
    },
    "configs": {"common", "configs"},
}


def _imports(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _allowed(path):
    starts = [key for key in ALLOWED if str(path) == key or key + "/" in str(path)]
    return ALLOWED[max(starts, key=len)]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path):
    ours = [name for name in _imports(path) if name.split(".")[0] in PACKAGES]
    allowed = _allowed(path)
    wrong = [n for n in ours if not any(f"{n}.".startswith(f"{a}.") for a in allowed)]
    assert not wrong, f"{path} may import {sorted(allowed)} of ours, not {wrong}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_only_one_file_knows_pmap_and_one_orbax(path):
    source = (ROOT / path).read_text(encoding="utf-8")
    assert "jax.pmap" not in source or path == Path("common/devices.py")
    if path != Path("common/checkpoint.py"):
        assert not [n for n in _imports(path) if n.startswith("orbax")]


# Where configs are made and read.
DOORS = (
    *("acq/tasks/", "ipv2/tasks/"),
    *("configs/", "common/config.py", "common/recipe.py"),
)
BELOW = [path for path in FILES if not str(path).startswith(DOORS)]


def _of_configs(name):
    whole = name in ("common.config", "common.config.ConfigDict", "common.config.*")
    return whole or name.split(".")[0] == "ml_collections"


@pytest.mark.parametrize("path", BELOW, ids=str)
def test_nothing_below_the_doors_knows_configs(path):
    names = list(_imports(path))
    assert not [name for name in names if _of_configs(name) or ".tasks" in name]


def test_the_checks_see_a_config():
    assert {Path("ipv2/inference/trained.py"), Path("acq/export.py")} < set(BELOW)
    assert any(map(_of_configs, _imports("ipv2/tasks/denoise.py")))
    assert _of_configs("ml_collections.config_flags")
    assert not _of_configs("common.config.flatten")


def test_the_checks_see_a_wrong_import():
    otsu = _allowed(Path("ipv2/kernels/otsu.py"))
    assert otsu == {"ipv2.kernels"} | CONVOLUTIONS
    assert _allowed(Path("common/depthwise.py")) == set()
    assert _allowed(Path("ipv2/tasks/train.py")) == {"common", "ipv2"}
    assert len(FILES) > 10

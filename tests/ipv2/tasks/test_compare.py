"""The grid of trainings: what it trains, and that IPv2 does what it is for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from configs import ipv2_zoo, quickstart
from ipv2.models import MODELS
from ipv2.tasks import compare
from ipv2.tasks.check import check_config
from ipv2.tasks.train import train

ROOT = Path(__file__).parents[3]


def test_the_zoo_is_every_network_on_every_kind_of_pairs():
    grid = compare.configs_of(ipv2_zoo.get_config())
    assert set(grid) == set(MODELS)
    for model, by_pair in grid.items():
        assert list(by_pair) == [
            *("none", "v1", "v2", "no_background", "no_add", "no_remove")
        ]
        for one in by_pair.values():
            check_config(one)
            assert one.model.name == model
        assert not by_pair["no_background"].purify.remove_background
        assert by_pair["no_add"].purify.add_noise == "none"
        assert by_pair["none"].purify.version == "none"
        assert by_pair["v2"].purify.remove_background


def test_filters_are_measured_once_and_not_by_the_trainings():
    config = quickstart.get_config()
    grid = compare.configs_of(config)
    assert all(one.evaluate.filters == () for one in grid["cnn10"].values())
    assert config.evaluate.filters == ("gaussian", "tv")


def test_filters_join_the_results_of_every_training():
    def run(**images):
        return {
            "n_slices": 1,
            "datasets": {"phantom": {"label": "truth", "n": images, **images}},
            "slices": [{"slice": 3, **images}],
        }

    trained = run(input=1, output=2) | {"seconds": 5}
    filters = run(input=1, tv=3)
    assert compare._joined(trained, filters) == run(input=1, tv=3, output=2) | {
        "seconds": 5
    }
    joined = compare._joined(trained, filters)
    assert list(joined["datasets"]["phantom"]["n"]) == ["input", "tv", "output"]


@pytest.mark.parametrize(("label", "kept"), [("truth", True), ("v2", False)])
def test_filters_join_no_numbers_of_another_label(label, kept):
    config = ipv2_zoo.get_config()
    config.compare.models, config.compare.pairs = ("cnn10",), ("v2", "no_remove")
    run = {"datasets": {"ct": {"label": label, "against_label": {}}}, "slices": [{}]}
    runs = {"cnn10": {"v2": run, "no_remove": run}}
    filters = {
        "datasets": {"ct": {"label": label, "tv": 1, "against_label": {"tv": 2}}},
        "slices": [{"dataset": "ct", "tv": 3}],
    }
    grid = compare.configs_of(config)
    found = compare._with_filters(runs, filters, grid, config)["cnn10"]
    same, other = (one["datasets"]["ct"] for one in found.values())
    assert same["tv"] == 1 and same["against_label"] == {"tv": 2}
    assert ("tv" in other) == kept and other["against_label"] == {}
    assert ("tv" in found["no_remove"]["slices"][0]) == kept


def test_without_models_the_config_s_own_is_compared():
    grid = compare.configs_of(quickstart.get_config())
    assert list(grid) == ["cnn10"] and list(grid["cnn10"]) == ["none", "v1", "v2"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("models", ("resnet",), "compare.models: no 'resnet' in config.compare.zoo"),
        ("pairs", ("v3",), "compare.pairs: no 'v3' in config.compare.options"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(key, value, said):
    config = ipv2_zoo.get_config()
    config.compare[key] = value
    with pytest.raises(UserError, match=said):
        check_config(config)


def _finished(workdir, config, results):
    workdir.mkdir()
    (workdir / "config.json").write_text(config.to_json_best_effort())
    (workdir / "results.json").write_text(json.dumps(results))


OF_TRAINING = {"n_slices": 2, "datasets": {}}
OF_COMPARISON = {"cnn10": {"none": OF_TRAINING, "v1": OF_TRAINING}}


@pytest.mark.parametrize(
    ("task", "results"),
    [
        *((train, OF_COMPARISON), (train, {"mine": 1}), (train, [])),
        *((compare.compare, OF_TRAINING), (compare.compare, {"mine": 1})),
        *((compare.compare, {}), (compare.compare, {"cnn10": {}})),
    ],
)
def test_a_run_of_another_task_is_not_taken_for_one_s_own(tmp_path, task, results):
    config = quickstart.get_config()
    _finished(tmp_path / "run", config, results)
    with pytest.raises(UserError, match=r"holds a run of another task|damaged"):
        task(config, tmp_path / "run")


def test_a_complete_comparison_without_its_table_is_told(tmp_path):
    config = quickstart.get_config()
    _finished(tmp_path / "run", config, OF_COMPARISON)
    with pytest.raises(UserError, match=r"comparison\.txt: damaged or gone"):
        compare.compare(config, tmp_path / "run")


@pytest.mark.parametrize("name", ["report.html", "checkpoints/x", "comparison.txt"])
@pytest.mark.parametrize("task", [train, compare.compare])
def test_a_folder_of_somebody_s_results_is_refused_before_any_work(
    tmp_path, name, task
):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"not of a run: .*{name} lies"):
        task(quickstart.get_config(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name.split("/")[0]]


@pytest.mark.slow
@pytest.mark.long
def test_ipv2_helps_on_the_phantom(tmp_path):
    """A known truth, 100 steps each: the outline stays, and noise goes from the lung.

    In a process of its own: one device, and XLA's optimizations on.
    """
    command = [
        *(sys.executable, str(ROOT / "launch.py"), "--config"),
        *("configs/ipv2_zoo.py:subset", "--workdir", str(tmp_path / "zoo")),
        f"--config.data.cache={tmp_path / 'cache'}",
        "--config.data.embedded=('phantom',)",
        "--config.data.phantom_size=192",
        "--config.train.duration=100 steps",
        "--config.compare.models=('cnn10',)",
        "--config.evaluate.filters=()",
    ]
    of_tests = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    environment = {k: v for k, v in os.environ.items() if k not in of_tests}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "zoo" / "results.json").read_text())
    assert set(results) == {"cnn10"}
    for model, runs in results.items():
        none, v1, v2 = (
            runs[pair]["datasets"]["phantom"]["output"] for pair in ("none", "v1", "v2")
        )
        # Misaligned pairs teach to move the lungs: by 0.58 mm, IPv2's by 0.22.
        assert v2["contour_mm"] < 0.75 * none["contour_mm"], model
        # IPv1's input has no noise in lung and background, so it stays there. After
        # so few steps IPv2 has removed 9 % of the lung's, 26 % of the background's.
        for region in ("lung", "background"):
            noise = [r["regions"][region]["local_noise_sd_hu"] for r in (v1, v2)]
            assert noise[1] < 0.96 * noise[0], (model, region, noise)
        assert (tmp_path / "zoo" / model / "comparison.png").stat().st_size > 10_000
        assert f"{v2['psnr_db']['lung']:.2f}" in done.stdout
    page = tmp_path / "zoo" / "report.html"
    assert page.stat().st_size < 15e6
    assert ", the best of 3, is better than the input" in page.read_text()

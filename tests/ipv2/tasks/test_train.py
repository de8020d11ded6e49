import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from common.checkpoint import load_manifest, load_variables
from common.devices import AXIS
from common.errors import UserError
from common.folder_lock import hold_folder
from common.pipeline import train_batches
from configs import ipv2_redcnn
from ipv2.inference.trained import load_trained
from ipv2.kernels.photon_noise import DoseParams
from ipv2.models import create_model
from ipv2.purification.purify import PurifyParams
from ipv2.report.verdict import NOTHING
from ipv2.tasks import pages, settings, train
from ipv2.tasks.evaluate import evaluate_run
from ipv2.tasks.registry import TASKS
from ipv2.tasks.tables import format_results
from ipv2.training.denoiser import Regression
from ipv2.training.losses import create_loss
from ipv2.training.pairs import PairParams
from ipv2.training.train_step import create_state, make_examples, make_train_step
from tests.ipv2.exports import export_network
from tests.ipv2.pair_folders import config_of, write_pairs, write_png
from tests.results_schema import documented_keys, keys_of

SIZE = 64


def _batch(count=4, *, breath=0.05, noise_hu=80):
    """A bright disc with two dark lungs, of two breaths, the first noisy."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    rng = np.random.default_rng(0)

    def thorax(shift):
        body = np.where(x**2 + y**2 < 0.2, 40.0, -1000.0)
        lung = (np.abs(x) - 0.18) ** 2 + (y - shift) ** 2 < 0.02
        return np.where(lung, -850.0, body)

    gt = np.stack([thorax(0.02 * i) for i in range(count)])
    lq = np.stack([thorax(0.02 * i + breath) for i in range(count)])
    lq = lq + rng.normal(0, noise_hu, lq.shape)
    return {
        "lq": jnp.asarray(lq, jnp.int16)[:, None],
        "gt": jnp.asarray(gt, jnp.int16)[:, None],
        "spacing_mm": jnp.full((count, 2), 5.0),
        "draw": jnp.arange(count, dtype=jnp.uint32),
    }


def _step(purification, learning_rate=1e-3):
    denoiser = Regression(model=create_model("cnn10"), loss=create_loss("mse"))
    optimizer = optax.adam(learning_rate)
    step = _composed(denoiser, optimizer, purification, 32, 2)
    return step, create_state(denoiser.init(jax.random.key(0)), optimizer)


def _composed(denoiser, optimizer, purification, patch, count, seed=0):
    """Examples from slices and a step on them, as `train` strings them together."""
    kind = "none" if purification is None else "purified"
    params = PairParams(kind=kind, purification=purification)
    examples = make_examples(params, patch=patch, patches_per_slice=count, seed=seed)
    step = make_train_step(denoiser, optimizer)
    return lambda state, shard: step(state, examples(shard))


def _on(devices, step):
    """The step on so many devices, by vmap: its collectives see as many."""
    over = jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS)

    @jax.jit
    def run(state, batch):
        split = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
        return over(state, split)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "version",
    [*(pytest.param(name, marks=pytest.mark.long) for name in ("none", "v1")), "v2"],
)
def test_the_loss_falls(version):
    """Aligned and very noisy, so that what is left to learn is to denoise."""
    purification = None if version == "none" else PurifyParams(version=version)
    step, state = _step(purification, learning_rate=3e-3)
    run, losses = _on(1, step), []
    batch = _batch(breath=0.0, noise_hu=300)
    for _ in range(40):
        state, metrics = run(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert int(state.step) == 40


@pytest.mark.slow
def test_four_devices_are_one_device_with_the_joined_batch():
    step, state = _step(PurifyParams())
    one, _ = _on(1, step)(state, _batch())
    four, _ = _on(4, step)(state, _batch())
    # Adam's first step is +-learning_rate: a sum in another order moves it by 1e-4 of
    # that where a gradient is next to nothing.
    for a, b in zip(
        jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


class _Identity(nn.Module):
    channels: int = 1

    @nn.compact
    def __call__(self, image, *, train=False):
        return image * self.param("gain", nn.initializers.ones, ())


@pytest.mark.slow
@pytest.mark.parametrize("add_noise", ["physical", "none"])
def test_a_slice_s_noise_is_drawn_anew_every_epoch_and_is_the_seed_s(add_noise):
    """The step shows its input: whole slices, and a loss that flips do not change."""
    one = {key: np.asarray(value[0]) for key, value in _batch(1).items()}
    del one["draw"]
    dose = DoseParams(dose=0.02, views=16)
    purification = PurifyParams(add_noise=add_noise, dose=dose)

    def losses(seed):
        denoiser = Regression(
            model=_Identity(),
            loss=lambda image, label, *_: jnp.max(
                jnp.abs(image - label) * (label < -0.8)
            ),
        )
        step = _composed(denoiser, optax.sgd(0.0), purification, SIZE, 1, seed)
        run, epochs = _on(1, step), train_batches([one], seed=seed, batch_size=1)
        variables = denoiser.init(jax.random.key(0))
        state = create_state(variables, optax.sgd(0.0))
        return [float(run(state, next(epochs))[1]["loss"]) for _ in range(3)]

    first = losses(0)
    assert first == losses(0)
    assert len({*first, *losses(1)}) == (6 if add_noise == "physical" else 1)


def test_physical_noise_is_the_default_of_training():
    assert settings.purify_params(ipv2_redcnn.get_config()).add_noise == "physical"


@pytest.mark.slow
def test_a_pair_as_it_is_needs_no_purification():
    """With no purification the input is lq itself."""
    step, state = _step(None, learning_rate=1e-9)
    batch = _batch()
    batch["gt"] = batch["lq"]
    _, metrics = _on(1, step)(state, batch)
    patches = batch["lq"].astype(jnp.float32) / 1000
    assert 0 <= float(metrics["loss"]) < float(jnp.mean(patches**2))


def _smoke(tmp_path, variant="smoke"):
    config = ipv2_redcnn.get_config(variant)
    config.model.name = "cnn10"
    config.data.cache = str(tmp_path / "cache")
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, train.train(_smoke(folder), folder / "work")


@pytest.mark.slow
def test_a_run_leaves_what_the_design_says(run):
    folder, results = run
    work = folder / "work"
    assert json.loads((work / "results.json").read_text()) == results
    assert json.loads((work / "config.json").read_text())["model"]["name"] == "cnn10"
    assert (work / "metrics.jsonl").read_text().count("train/loss") == 2
    assert (work / "checkpoints" / "4").is_dir()
    manifest = load_manifest(work / "export")
    assert manifest["model"]["name"] == "cnn10"
    assert manifest["embedded_splits"]["phantom_slices"] == 2


@pytest.mark.slow
def test_results_hold_the_names_that_others_read(run):
    _, results = run
    assert list(results["datasets"]) == results["dataset_names"] == ["phantom"]
    block = results["datasets"]["phantom"]
    for image in ("input", "gaussian", "tv", "output"):
        for metric in ("psnr_db", "ssim", "rmse_hu"):
            assert {"lung", "soft_tissue", "full"} <= set(block[image][metric])
        for region in ("background", "lung", "body"):
            values = block[image]["regions"][region]
            assert np.isfinite(values["noise_sd_hu"]) and np.isfinite(values["bias_hu"])
        assert set(block[image]["tissues"]) == {"air", "lung", "fat", "soft", "bone"}
        for values in block[image]["tissues"].values():
            assert set(values) == {"bias_hu", "noise_sd_hu", "n"}
        assert len(block["interval"][image]["psnr_db"]["lung"]) == 2
        assert block["sd"][image]["psnr_db"]["lung"] > 0
    assert block["label"] == "truth" and block["against_label"]["label"] == "v2"
    assert block["strengths"]["tv"]["chosen_on"] == "val"
    assert results["n_slices"] == 2 and results["seed"] == 0 and results["seconds"] > 0
    assert [one["slice"] for one in results["slices"]] == [0, 1]


@pytest.mark.slow
def test_a_training_s_results_have_documented_keys_and_their_tables(run):
    folder, results = run
    found = keys_of(results)
    assert found <= documented_keys() and {"steps", "seconds"} <= found
    assert results["schema_version"] == 2
    work = folder / "work"
    assert "GMSD" in (work / "results.txt").read_text()
    # Two slices of input, gaussian, tv and output.
    assert len((work / "results.csv").read_text().splitlines()) == 1 + 2 * 4


@pytest.mark.slow
def test_the_report_of_a_training_shows_its_slices_as_they_were_measured(
    run, monkeypatch
):
    folder, results = run
    assert (folder / "work" / "report.html").stat().st_size > 1000
    found = []
    monkeypatch.setattr(
        pages, "write_page", lambda path, one: found.append((path, one))
    )
    evaluate_run(_smoke(folder), folder / "work")
    ((path, report),) = found
    assert path.name == "evaluation.html" and "phantom (2 slices" in report.verdict
    assert report.facts["Pairs"].startswith("IPv2 (variant robust")
    assert "cnn10" in report.facts["Network"] and report.facts["Seed"] == "0"
    viewer = report.sections[0].parts[0]
    assert [one.role for one in viewer.slices] == ["worst", "best"]
    block = results["datasets"]["phantom"]
    for one in viewer.slices:
        row = results["slices"][int(one.name.rsplit(" ", 1)[1])]
        assert list(one.images) == [
            *("input", "gaussian", "tv", "output", "IPv2's test label", "truth")
        ]
        for image in ("input", "gaussian", "tv", "output"):
            hu = one.images[image].astype(np.float64)
            error = np.clip(hu, -1024, 3072) - one.images["truth"]
            # Rounded to whole HU, which moves no pixel by more than a half.
            rmse = np.sqrt(np.mean(error**2))
            assert rmse == pytest.approx(row[image]["rmse_hu"]["full"], abs=0.5)
    shown = {row[1]: row[2].mean for row in report.headline.rows}
    assert shown == {n: block[n]["psnr_db"]["lung"] for n in shown} and len(shown) == 4


@pytest.mark.slow
def test_validations_measure_no_filters_and_keep_their_names(run):
    folder, _ = run
    lines = (folder / "work" / "metrics.jsonl").read_text().splitlines()
    names = {key for line in lines for key in json.loads(line)}
    assert {"val/psnr_db_lung", "val/ssim_full", "val/noise_sd_hu_body"} <= names
    assert not any("tv" in name or "phantom" in name for name in names)


@pytest.mark.slow
def test_the_same_command_again_says_that_it_is_complete(run, capsys, caplog):
    folder, results = run
    with caplog.at_level("INFO", logger="absl"):
        TASKS["train"](_smoke(folder), folder / "work")
    assert "is complete" in caplog.text
    assert format_results(results, title="work") in capsys.readouterr().out


@pytest.mark.slow
def test_another_config_in_the_same_folder_is_refused(run):
    folder, _ = run
    config = _smoke(folder)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"config\.optimizer\.learning_rate: the run"):
        train.train(config, folder / "work")


@pytest.mark.slow
def test_evaluate_uses_the_exported_network(run):
    folder, results = run
    config = _smoke(folder)
    config.model.name = "redcnn"  # the export says cnn10
    evaluated = evaluate_run(config, folder / "work")
    assert evaluated["datasets"] == results["datasets"]


def test_evaluate_without_an_export_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="no exported network here"):
        evaluate_run(_smoke(tmp_path), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def _folder_config(tmp_path, **changes):
    """On tmp_path/root, unpurified: what takes longest is compiled for others."""
    config = config_of(tmp_path, **changes)
    config.model.name = "cnn10"
    config.purify.version = "none"
    return config


@pytest.mark.slow
def test_a_run_on_folders_begins_after_failed_commands_and_stays_with_its_data(
    tmp_path,
):
    root, work = tmp_path / "root", tmp_path / "work"
    root.mkdir()
    config = _folder_config(tmp_path)
    with pytest.raises(UserError, match=r"lq: no such folder"):
        train.train(config, work)
    write_png(root, "P", size=64)
    with pytest.raises(UserError, match="State the window"):
        train.train(config, work)
    assert not (work / "config.json").exists()
    # Another size in the split that is tested: it is measured all the same.
    write_pairs(root, "ABC", size=64)
    write_pairs(root, "D", size=48)
    config.data.window = (-600.0, 1500.0)
    config.data.test_patients = ("C", "D")
    results = train.train(config, work)
    block = results["datasets"]["paired_folders"]
    assert block["n_slices"] == 4 and block["output"]["psnr_db"]["full"] > 0
    # Of 64 pixels, which are too few to see that the random values are aligned.
    assert block["label"] == "v2" and block["alignment"]["share"] is None
    assert block["interval_over"] == "patients" and "tissues" not in block["output"]
    assert block["strengths"]["tv"]["chosen_on"] == "train"
    assert {one["patient"] for one in results["slices"]} == {"C", "D"}
    record = json.loads((work / "data.json").read_text())
    assert record["datasets"]["paired_folders"]["patients"] == {
        "train": ["A", "B", "P"],
        "val": [],
        "test": ["C", "D"],
    }

    assert train.train(config, work) == results
    write_pairs(root, "E", size=64)
    with pytest.raises(UserError, match="patient 'E' is new, in train"):
        train.train(config, work)

    # The whole of another folder, as an external test set.
    write_pairs(tmp_path / "other", "XY", size=64)
    config.data.root = str(tmp_path / "other")
    config.data.split, config.data.test_patients = (0.0, 0.0, 1.0), ()
    config.evaluate.label = "gt"
    evaluated = evaluate_run(config, work)
    assert evaluated["n_slices"] == 4
    block = evaluated["datasets"]["paired_folders"]
    assert block["label"] == "gt" and "tissues" in block["output"]
    expected = {"strength": 1.0, "chosen_on": "default", "n_slices": 0, "at_end": False}
    assert block["strengths"] == {"gaussian": expected, "tv": expected}
    assert "default: no slices to choose on" in format_results(evaluated)
    assert json.loads((work / "results.json").read_text()) == results


@pytest.mark.slow
def test_a_run_that_holds_nobody_out_ends_without_numbers(tmp_path, capsys):
    write_pairs(tmp_path / "root", "A", size=64)
    config = _folder_config(tmp_path, data__split=(1.0, 0.0, 0.0))
    TASKS["train"](config, tmp_path / "work")
    assert "nothing was held out to measure" in capsys.readouterr().out
    assert NOTHING in (tmp_path / "work" / "report.html").read_text()
    assert load_manifest(tmp_path / "work" / "export")["step"] == 4
    with pytest.raises(UserError, match=r"config\.data\.split: nobody is held out"):
        evaluate_run(config, tmp_path / "work")
    with pytest.raises(UserError, match=r"config\.data\.split: nobody is held out"):
        TASKS["compare"](config, tmp_path / "grid")


@pytest.mark.parametrize("task", ["train", "compare"])
def test_a_second_command_in_the_workdir_is_refused(tmp_path, task):
    with (
        hold_folder(tmp_path / "work", "another"),
        pytest.raises(UserError, match="another command is at work in"),
    ):
        TASKS[task](_smoke(tmp_path), tmp_path / "work")


@pytest.mark.slow
def test_evaluate_waits_for_no_other_command(run):
    folder, _ = run
    with (
        hold_folder(folder / "work", "another"),
        pytest.raises(UserError, match="another command is at work in"),
    ):
        evaluate_run(_smoke(folder), folder / "work")


@pytest.mark.slow
def test_exported_parameters_are_those_of_the_last_checkpoint(run):
    folder, _ = run
    denoiser = settings.denoiser(_smoke(folder))
    fresh = denoiser.init(jax.random.key(0))
    loaded = load_variables(folder / "work" / "export", fresh)
    moved = [
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(fresh), strict=True)
    ]
    assert all(value > 0 for value in moved)


@pytest.mark.slow
def test_training_goes_on_from_an_export(run, tmp_path):
    folder, _ = run
    config = _smoke(folder)
    config.train.start = str(folder / "work")
    config.train.duration = config.train.evaluate = config.train.save = "1 steps"
    config.optimizer.learning_rate = 1e-12
    TASKS["train"](config, tmp_path / "again")
    before, after = (
        load_trained(work / "export").variables
        for work in (folder / "work", tmp_path / "again")
    )
    # Adam's step is that rate.
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-11)
    jax.tree.map(close, before, after)
    manifest = load_manifest(tmp_path / "again/export")
    first = load_manifest(folder / "work/export")
    assert manifest["started_from"]["sha256"] == first["sha256"]
    assert str(folder) not in json.dumps(manifest)


def test_training_goes_on_from_the_same_network_alone(tmp_path):
    export_network(tmp_path, name="cnn10", residual=False)
    config = ipv2_redcnn.get_config("smoke")
    config.train.start = str(tmp_path)
    words = (
        r"config.train.start: .* holds .*'residual': False.* but config.model asks for"
    )
    with pytest.raises(UserError, match=words):
        train._start(config)
    with config.unlocked():
        config.model.update({"name": "cnn10", "residual": False})
    assert train._start(config).name == "cnn10"
    config.train.start = "shipped"
    with pytest.raises(UserError, match=r"shipped holds .*'unet'"):
        train._start(config)

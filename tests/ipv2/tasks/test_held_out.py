"""Which embedded slices judge a network: those that its training held out."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from configs import ipv2_batch_norm, ipv2_unet
from ipv2.datasets.embedded import UNET_SPLITS, EmbeddedSplits
from ipv2.datasets.splits import Deal
from ipv2.kernels.photon_noise import DoseParams
from ipv2.models import unit_to_hu
from ipv2.tasks import settings
from ipv2.tasks.held_out import doubt, record_splits, trained_splits
from ipv2.tasks.image_network import open_denoiser, untrained_denoiser
from ipv2.tasks.judged_images import ImageData, Judge, image_patches
from tests.ipv2.exports import export_network

OTHER = dataclasses.replace(
    UNET_SPLITS,
    seed=3,
    sample_slices=(10, 30),
    sample_val=(11,),
    sample_test=(20, 25),
    phantom_patients=(1, 1, 2),
    phantom_slices=1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    cache = tmp_path_factory.mktemp("data")
    noise = DoseParams(dose=0.02)
    return ImageData(splits=OTHER, noise=noise, cache=cache, size=32)


def patients(stacks):
    return [stacks[i]["patient"].decode() for i in range(len(stacks))]


@pytest.mark.parametrize("recipe", [ipv2_unet, ipv2_batch_norm])
def test_exports_that_state_none_have_the_splits_of_the_recipe(recipe):
    assert settings.embedded_splits(recipe.get_config()) == UNET_SPLITS


def test_a_training_records_its_splits_and_they_come_back():
    config = ipv2_unet.get_config()
    config.seed, config.data.sample_test = 3, (7, 8)
    config.data.split = (0.5, 0.25, 0.25)
    config.data.val_patients = ("sample_ct",)
    record = json.loads(json.dumps(record_splits(config, ["sample_ct"])))
    found = trained_splits(record, "export")
    assert found == settings.embedded_splits(config) != UNET_SPLITS


def test_trainings_on_other_data_record_nothing_and_saw_nothing(caplog):
    config = ipv2_unet.get_config()
    config.data.test_patients = ("a person's name",)
    assert record_splits(config, ["paired_folders"]) == {}
    manifest = {"datasets": ["paired_folders"]}
    assert trained_splits(manifest, "export") == UNET_SPLITS
    assert doubt(manifest, "export") == ""
    assert untrained_denoiser("").warnings == () and not caplog.records


@pytest.mark.parametrize("manifest", [{}, {"datasets": ["phantom"]}])
def test_an_export_that_does_not_say_what_it_saw_is_named(manifest):
    assert trained_splits(manifest, "old/export") == UNET_SPLITS
    assert doubt(manifest, "old/export").startswith("old/export: this export does not")


@pytest.mark.parametrize("splits", [7, {}, {**OTHER.to_json(), "more": 1}])
def test_a_manifest_that_was_changed_is_refused(splits):
    with pytest.raises(UserError, match="export: its manifest has other embedded_spl"):
        trained_splits({"embedded_splits": splits}, "export")


@pytest.mark.parametrize("splits", [OTHER, UNET_SPLITS])
def test_the_sample_s_numbers_are_those_of_the_training(splits, tmp_path):
    noise = DoseParams(dose=0.5)
    builder = splits.builder("sample_ct", noise=noise, phantom_size=64, cache=tmp_path)
    config = builder.builder_config
    assert config.slices == splits.sample_slices and config.seed == splits.seed
    assert config.val_slices == splits.sample_val and config.noise == noise
    assert config.test_slices == splits.sample_test and config.deal == splits.deal
    with pytest.raises(ValueError, match="got data set 'ct', accepted: sample_ct, ph"):
        splits.builder("ct", noise=noise, phantom_size=64, cache=tmp_path)


@pytest.mark.slow
def test_a_teacher_of_other_slices_is_judged_on_those(data):
    # Numbered from 1,000,000 times the seed: one to train on, one to validate on.
    held_out = ["phantom-3000002", "phantom-3000003"]
    assert patients(data.held_out("phantom")) == held_out
    assert patients(data.seen("phantom")) == ["phantom-3000000"]
    judge = Judge(data._replace(embedded=("phantom",)))
    seen = []
    judge({"float": lambda x: seen.append(np.asarray(x)) or x[..., :1]})
    stacks = data.held_out("phantom")
    for i, x in enumerate(seen):
        want = np.moveaxis(stacks[i]["lq"], 0, -1)
        np.testing.assert_allclose(unit_to_hu(jnp.asarray(x[0])), want, atol=1e-3)
    assert len(seen) == 2


@pytest.mark.slow
def test_an_export_s_manifest_decides_what_judges_it(data, tmp_path, caplog):
    export_network(tmp_path)
    options = {"cache": str(data.cache), "embedded": ("phantom",), "size": data.size}
    older = open_denoiser(str(tmp_path), **options)
    (view,), (warning,) = older.views({}), older.warnings
    assert view.name == "phantom, phantom-000004, slice 0" and view.role == "held out"
    assert "does not say which slices" in warning and warning in caplog.text
    path = tmp_path / "export" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"embedded_splits": OTHER.to_json()}))
    caplog.clear()
    (view,) = open_denoiser(str(tmp_path), **options).views({})
    assert view.name == "phantom, phantom-3000003, slice 0" and not caplog.records


@pytest.mark.slow
def test_images_for_ranges_are_of_slices_that_the_training_saw(data):
    patches = image_patches(data, "phantom", 3, 32, 0)  # whole slices
    seen = data.seen("phantom")
    truths = [np.asarray(seen[i]["truth"], np.float32) for i in range(len(seen))]
    for hu in np.asarray(unit_to_hu(jnp.asarray(patches)))[..., 0]:
        assert any(np.abs(hu - truth).max() < 0.01 for truth in truths)


@pytest.mark.slow
def test_validation_slices_judge_where_there_is_no_test(data, tmp_path):
    splits = dataclasses.replace(OTHER, phantom_patients=(1, 1, 0))
    without_test = data._replace(splits=splits, cache=tmp_path)
    assert patients(without_test.held_out("phantom")) == ["phantom-3000001"]


@pytest.mark.parametrize(
    ("name", "changes", "holds"),
    [
        ("phantom", {"phantom_patients": (1, 0, 0)}, False),
        ("phantom", {"phantom_patients": (1, 1, 0)}, True),
        ("sample_ct", {"deal": Deal(fractions=(1.0, 0.0, 0.0))}, True),
        ("sample_ct", {"sample_val": (), "sample_test": ()}, True),
        ("sample_ct", {"deal": Deal(test_patients=("sample_ct",))}, True),
        ("sample_ct", {"deal": Deal(test_patients=("other",))}, False),
    ],
)
def test_splits_say_whether_they_hold_anything_out(name, changes, holds):
    assert dataclasses.replace(OTHER, **changes).holds_out(name) is holds


def test_a_training_that_held_nothing_out_is_refused_before_anything_is_built(tmp_path):
    export_network(tmp_path)
    path = tmp_path / "export" / "manifest.json"
    splits = dataclasses.replace(
        OTHER, sample_val=(), sample_test=(), deal=Deal(fractions=(1.0, 0.0, 0.0))
    )
    manifest = json.loads(path.read_text()) | {"embedded_splits": splits.to_json()}
    path.write_text(json.dumps(manifest))
    with pytest.raises(
        UserError, match=r"judge\.embedded: got .* no slice of sample_ct"
    ):
        open_denoiser(str(tmp_path), cache=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_splits_without_a_field_do_not_pass():
    found = OTHER.to_json()
    del found["seed"]
    with pytest.raises(TypeError, match="seed"):
        EmbeddedSplits.from_json(found)

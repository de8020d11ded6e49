"""The keys of results are those that docs/evaluation.md lists, no more and no fewer."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from common.errors import RunFailed
from ipv2.measures.distributions import distribution_distances
from ipv2.tasks import settings
from ipv2.tasks.evaluate import evaluate, evaluate_held_out
from ipv2.tasks.references import references_of
from ipv2.tasks.tables import format_results
from tests.ipv2.tasks.test_references import config, records, sources
from tests.results_schema import documented_keys, keys_of

# Of results that other tests make: of a training, and of outputs of other software.
OF_TRAINING = {"steps", "seconds"}
OF_OUTPUTS = {key for key in documented_keys() if key.startswith("outputs.")}


def bands(images):
    """An extractor of features."""
    return np.stack([images.mean((1, 2)), images.std((1, 2))], axis=1)


def evaluated(test, png="", **keys):
    made = config(**keys)
    made.evaluate.png = str(png)
    made.model.name = "cnn10"
    made.noise.views = 48
    found = sources(train={"known": records(1, truth=True)}, test=test)
    denoiser = settings.denoiser(made)
    variables = denoiser.init(jax.random.key(0))
    return evaluate_held_out(denoiser, variables, found, made)


@pytest.fixture(scope="module")
def results():
    """A data set of each kind of reference."""
    return evaluated(
        {
            "known": records(2, truth=True),
            "fixed": records(1),
            "breath": records(1, shift=0.1),
        }
    )


@pytest.fixture(scope="module")
def png_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("png")


@pytest.fixture(scope="module")
def on_request(png_folder):
    """What the config has to ask for."""
    test = {"known": records(4, truth=True)}
    features = (f"{__name__}:bands",)
    return evaluated(test, detail=True, features=features, png=png_folder)


@pytest.mark.slow
def test_every_key_of_results_is_documented_and_every_documented_key_is_there(
    results, on_request
):
    assert {one["label"] for one in results["datasets"].values()} == {
        *("truth", "gt", "v2")
    }
    found = keys_of(results) | keys_of(on_request)
    documented = documented_keys() - OF_TRAINING - OF_OUTPUTS
    assert found - documented == set(), "not documented"
    assert documented - found == set(), "documented, but not there"


@pytest.mark.slow
def test_results_are_json_without_nan(results, on_request):
    for one in (results, on_request):
        assert json.loads(json.dumps(one, allow_nan=False)) == one


@pytest.mark.slow
def test_what_was_asked_for_has_tables(on_request):
    text = format_results(on_request, title="run")
    assert "run: known: nodules in lung, 4 slices of 1 patient," in text
    assert "6 mm of -100 HU" in text and "FID" in text and "floor" in text
    assert max(map(len, text.split("\n"))) <= 120
    one = on_request["datasets"]["known"]["distances"][f"{__name__}:bands"]
    assert list(one) == ["input", "gaussian", "tv", "output"]
    assert one["input"]["images"] == 4 and one["input"]["fid"] > 0
    assert "groups: an interval from so few" in one["input"]["note"]


@pytest.mark.slow
def test_distances_can_be_computed_again_from_the_png(on_request, png_folder):
    """Another reader's images give the features of the results."""
    folders = [path for path in png_folder.glob("known/*") if path.is_dir()]
    assert {path.name for path in folders} == {
        *("reference", "input", "gaussian", "tv", "output")
    }
    seen = {}
    for folder in folders:
        paths = sorted(folder.glob("*.png"))
        greys = []
        for path in paths:
            with Image.open(path) as file:
                greys.append(np.asarray(file))
        assert len(paths) == 4
        seen[folder.name] = bands(np.stack(greys))
    found = on_request["datasets"]["known"]["distances"][f"{__name__}:bands"]
    for image in ("input", "tv", "output"):
        again = distribution_distances(seen[image], seen["reference"], list("abcd"))
        assert found[image]["fid"] == pytest.approx(again.fid, rel=1e-6)
        assert again.fid > 0


@pytest.mark.slow
def test_too_few_slices_for_distances_are_told():
    found = evaluated(
        {"known": records(1, truth=True)}, features=(f"{__name__}:bands",)
    )
    one = found["datasets"]["known"]["distances"][f"{__name__}:bands"]["output"]
    assert one["fid"] is None and one["kid"]["value"] is None
    assert "at least 2 are needed" in one["note"]


def test_the_check_sees_what_is_missing():
    documented = documented_keys()
    assert {"schema_version", "IMAGE.psnr_db.WINDOW", "datasets.NAME.sd.IMAGE"} <= (
        documented
    )
    assert "windows.WINDOW.low_hu" in documented and OF_TRAINING <= documented
    one = {"n_slices": 1, "datasets": {}, "slices": [{"patient": "p", "odd": 1}]}
    assert keys_of(one) - documented == {"slices[].odd"}


@pytest.mark.slow
def test_an_output_that_is_not_finite_ends_the_run_with_a_message():
    made = config(filters=())
    found = sources(test={"known": records(1, truth=True)})
    references = references_of(found, made)
    denoiser = settings.denoiser(made)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, denoiser.init(jax.random.key(0)))
    with pytest.raises(RunFailed, match=r"evaluation: slice 0: .*output.* not finite"):
        evaluate(
            denoiser,
            broken,
            found.test,
            made,
            references,
            name="test",
            full=False,
        )

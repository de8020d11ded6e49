"""The keys of results are those that docs/evaluation.md lists, no more and no fewer."""

import json

import jax
import pytest

from ipv2.tasks import settings
from ipv2.tasks.evaluate import evaluate_held_out
from tests.ipv2.tasks.test_references import config, records, sources
from tests.results_schema import documented_keys, keys_of

# Of results that other tests make: of a training, and of outputs of other software.
OF_TRAINING = {"steps", "seconds"}
OF_OUTPUTS = {key for key in documented_keys() if key.startswith("outputs.")}


@pytest.fixture(scope="module")
def results():
    """A data set of each kind of reference."""
    made = config()
    made.model.name = "cnn10"
    found = sources(
        train={"known": records(1, truth=True)},
        test={
            "known": records(2, truth=True),
            "fixed": records(1),
            "breath": records(1, shift=0.1),
        },
    )
    denoiser = settings.denoiser(made)
    variables = denoiser.init(jax.random.key(0))
    return evaluate_held_out(denoiser, variables, found, made)


@pytest.mark.slow
def test_every_key_of_results_is_documented_and_every_documented_key_is_there(results):
    assert {one["label"] for one in results["datasets"].values()} == {
        *("truth", "gt", "v2")
    }
    found, documented = keys_of(results), documented_keys() - OF_TRAINING - OF_OUTPUTS
    assert found - documented == set(), "not documented"
    assert documented - found == set(), "documented, but not there"


@pytest.mark.slow
def test_results_are_json_without_nan(results):
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_the_check_sees_what_is_missing():
    documented = documented_keys()
    assert {"schema_version", "IMAGE.psnr_db.WINDOW", "datasets.NAME.sd.IMAGE"} <= (
        documented
    )
    assert "windows.WINDOW.low_hu" in documented and OF_TRAINING <= documented
    one = {"n_slices": 1, "datasets": {}, "slices": [{"patient": "p", "odd": 1}]}
    assert keys_of(one) - documented == {"slices[].odd"}

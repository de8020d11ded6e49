"""What reports say of a run in words."""

import re

from configs import ipv2_redcnn, ipv2_unet
from ipv2.report.verdict import NO_RANKING
from ipv2.tasks import facts
from ipv2.tasks.sources import Joined, Sources
from tests.ipv2.report.made import NOTHING, of_psnr


def sources(name, data):
    nothing = Joined({})
    return Sources((name,), nothing, nothing, nothing, data, ())


def test_data_are_told_with_slices_and_patients():
    data = {
        "records": {"train": 1200, "val": 0, "test": 2},
        "patients": {"train": [*"abcdefgh"], "val": [], "test": ["p"]},
    }
    found = of_psnr(input=[20.0, 21.0], output=[22.0, 23.0])
    assert facts.data_words(sources("ct", {"ct": data}), found) == (
        "ct (train: 1,200 slices of 8 patients (a, b, c, d, e, f, ...), "
        "measured: 2 slices of 1 patient (p))"
    )
    assert facts.data_words(sources("ct", {}), NOTHING) == "ct (nothing measured)"


def test_doses_are_known_of_simulated_data_alone():
    config = ipv2_redcnn.get_config()
    assert facts.doses_of(sources("phantom", {}), config) == {"phantom": 0.02}
    mine = sources("paired_folders", {})
    assert facts.doses_of(mine, config) == {}
    assert facts.dose_words(mine, config).startswith("inputs as scanned;")
    text = facts.dose_words(sources("phantom", {}), ipv2_unet.get_config())
    assert "inputs simulated at 2 % of the normal dose" in text
    assert "training draws dose_range 0.01 to 0.5" in text


def test_pairs_are_told_with_what_composes_them():
    config = ipv2_redcnn.get_config("no_add")
    text = facts.pairs_words(config.purify.to_dict())
    assert text.startswith("IPv2 (variant robust, add_noise none, remove_noise tv")
    assert facts.pairs_words({"version": "simulated"}) == "simulated"


def test_a_run_has_seed_software_time_and_machine():
    found = facts.run_facts(3, 3900.0)
    assert list(found) == ["Seed", "Software", "Time", "Machine"]
    assert found["Seed"] == "3" and found["Software"].startswith("version ")
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC, after 1 h 5 min in this command"
    assert re.fullmatch(time, found["Time"])
    assert "after 90 s" in facts.run_facts(3, 90.0)["Time"]
    assert "cpu" in found["Machine"] and "jax" in found["Machine"]


def test_readers_are_warned_of_labels_of_one_patient_and_of_missing_outputs():
    found = of_psnr(label="v2", input=[20.0, 21.0], output=[22.0, 23.0])
    found["outputs"] = {
        **{"skipped": [{"path": "a", "reason": "b"}], "n_slices_without_output": 3},
        "n_not_held_out": 0,
    }
    warnings = facts.warnings_of(found)
    assert warnings[0] == f"ct: {NO_RANKING}"
    assert "all slices are of one patient" in warnings[1]
    assert warnings[2:] == [
        *("1 files or volumes were skipped.", "3 slices held out have no output."),
    ]
    fine = of_psnr(patients=["p", "q"], input=[20.0, 21.0], output=[22.0, 23.0])
    assert facts.warnings_of(fine) == []


def test_a_label_that_was_stated_against_the_evidence_is_told():
    found = of_psnr(label="gt", input=[20.0, 21.0], output=[22.0, 23.0])
    found["datasets"]["ct"]["alignment"] = {
        **{"share": 0.4, "n_tiles": 9, "n_slices": 2, "aligned": False}
    }
    assert "they do not look so" in facts.warnings_of(found)[0]

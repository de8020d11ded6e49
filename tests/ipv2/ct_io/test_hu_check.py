"""Readers refuse values that cannot be HU, and accept others."""

import re

import numpy as np
import PIL.Image
import pytest

from common.errors import UserError
from ipv2 import ct_io
from ipv2.ct_io.hu_check import problem_of
from tests.ipv2.ct_files import make_slice, save
from tests.oracles.thorax import thorax

CHEST = np.rint(thorax(64).hu)
NOISY = np.rint(CHEST + np.random.default_rng(0).normal(0, 100, CHEST.shape))


@pytest.mark.parametrize("hu", [CHEST, NOISY, np.clip(NOISY, -1024, 3071)])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda hu: np.maximum(hu, -1024) + 1024, r"HU \+ 1024"),
        (lambda hu: (np.clip(hu, -1024, 3071) + 1024) / 4095, r"0 \.\.\. 1"),
        (lambda hu: np.clip((hu + 1350) / 1500 * 255, 0, 255), "grey levels"),
        (lambda hu: np.where(hu > 500, 40000, hu), "beyond what HU reach"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "span less than 100"),
        (lambda hu: 20 * (1 + np.maximum(hu, -1024) / 1000), "less than 100|grey"),
        (lambda hu: (np.maximum(hu, -1024) + 1024) * 12, "above 4000"),
    ],
)
def test_what_is_no_hu_is_named(hu, change, what):
    problem = problem_of(change(hu))
    assert re.search(what, problem)


@pytest.mark.parametrize(
    "hu",
    [
        CHEST,
        NOISY,
        np.clip(CHEST, -160, 240),  # through a soft-tissue window: no air
        np.clip(CHEST, -300, 300),
        np.full((64, 64), -1000.0),  # above the patient
        CHEST[24:40, 24:40] * 0 + 40.0 - np.eye(16) * 100,  # inside an organ
        np.where(CHEST > 300, 3071.0, CHEST),  # metal
    ],
)
def test_what_may_be_hu_is_not_refused(hu):
    assert problem_of(hu) == ""


@pytest.mark.parametrize("intercept", ["0", "", None])
def test_a_series_without_its_intercept_is_refused_unless_trusted(tmp_path, intercept):
    data = make_slice(np.maximum(CHEST, -1024).astype(int) + 1024, intercept="0")
    if intercept is None:
        del data.RescaleIntercept
    else:
        data.RescaleIntercept = intercept
    save(data, tmp_path / "s" / "a.dcm")
    with pytest.raises(
        UserError, match=r"\(0028,1052\).*--config\.data\.trust_hu=True"
    ):
        ct_io.read_volume(tmp_path / "s")
    with (
        pytest.raises(UserError, match="trust_hu"),
        ct_io.open_volume(tmp_path / "s"),
    ):
        pass
    trusted = ct_io.read_volume(tmp_path / "s", ct_io.ReadOptions(trust_hu=True))
    assert trusted.hu.min() >= 0


@pytest.mark.parametrize("kind", ["LOCALIZER", "SCOUT"])
def test_a_localizer_in_a_folder_of_its_own_is_refused(tmp_path, kind):
    data = make_slice(CHEST.astype(int) + 1024)
    data.ImageType = ["ORIGINAL", "PRIMARY", kind]
    save(data, tmp_path / "s" / "a.dcm")
    with pytest.raises(UserError, match=rf"a\.dcm: a localizer .*{kind}"):
        ct_io.read_volume(tmp_path / "s")


@pytest.mark.parametrize("padding", [-2000, -3024])
def test_padding_does_not_pass_for_air(tmp_path, padding):
    """Returns HU + 1024 with a circular field of view."""
    y, x = np.mgrid[:64, :64] - 31.5
    stored = np.where(np.hypot(x, y) > 31, padding, np.maximum(CHEST, -1024) + 1024)
    data = make_slice(stored.astype(int), signed=True, bits=16, intercept="0")
    with pytest.raises(UserError, match=r"HU \+ 1024.*trust_hu"):
        ct_io.read_volume(save(data, tmp_path / "a.dcm"))


def test_a_black_png_is_not_checked(tmp_path):
    PIL.Image.new("L", (32, 32), 0).save(tmp_path / "above.png")
    options = ct_io.ReadOptions(window=(40.0, 400.0))
    assert np.all(ct_io.read_volume(tmp_path / "above.png", options).hu == -160)

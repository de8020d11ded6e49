"""Tests of ipv2.measures.png_folders."""

import json

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from ipv2.measures.feature_extractors import to_uint8
from ipv2.measures.metrics import WINDOWS
from ipv2.measures.png_folders import write_png_folders

LUNG = WINDOWS["lung"]


def _images(n: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(-1400, 200, (n, 6, 7)).astype(np.float32)
        for name in ("truth", "output")
    }


def test_the_folders_hold_what_networks_see(tmp_path):
    images = _images()
    write_png_folders(tmp_path, images, ["p1_0001", "p1_0002"], LUNG)
    write_png_folders(tmp_path, images, ["p1_0003", "p1_0004"], LUNG)
    for folder, slices in images.items():
        assert len(list((tmp_path / folder).glob("*.png"))) == 4
        for name, image in zip(["p1_0001", "p1_0002"], slices, strict=True):
            with Image.open(tmp_path / folder / f"{name}.png") as file:
                assert file.mode == "L"
                np.testing.assert_array_equal(np.asarray(file), to_uint8(image, LUNG))


def test_the_description_states_bits_and_window(tmp_path):
    write_png_folders(tmp_path, _images(), ["a", "b"], LUNG)
    content = json.loads((tmp_path / "png_folders.json").read_text())
    assert content["bits"] == 8
    assert content["window_hu"] == {"centre": -600, "width": 1500}
    assert (content["black_hu"], content["white_hu"]) == (-1350, 150)
    assert content["folders"] == ["output", "truth"]


def test_other_windows_and_other_images_are_refused(tmp_path):
    write_png_folders(tmp_path, _images(), ["a", "b"], LUNG)
    write_png_folders(tmp_path, _images(), ["a", "b"], LUNG)  # the same: they stay
    with pytest.raises(UserError, match=r"b.png: it holds another image"):
        write_png_folders(tmp_path, _images(), ["b", "a"], LUNG)
    (tmp_path / "truth" / "a.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"a.png: no PNG"):
        write_png_folders(tmp_path, _images(), ["a", "b"], LUNG)
    with pytest.raises(UserError, match="another window"):
        write_png_folders(tmp_path, _images(), ["c", "d"], WINDOWS["soft_tissue"])
    (tmp_path / "png_folders.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        write_png_folders(tmp_path, _images(), ["c", "d"], LUNG)


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "../b"], ["a", ".b"]])
def test_wrong_names_are_refused(tmp_path, names):
    with pytest.raises(ValueError, match="name"):
        write_png_folders(tmp_path, _images(), names, LUNG)
    assert not list(tmp_path.iterdir())

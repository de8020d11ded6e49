import numpy as np
import pytest
from PIL import Image

from ipv2.tasks.figure import save_comparison

IMAGES = {
    "input": np.full((40, 50), -1350.0, np.float32),
    "label": np.full((40, 50), 150.0, np.float32),
}


def panels(path):
    """How many pixels each grey level fills."""
    with Image.open(path) as image:
        levels, counts = np.unique(np.asarray(image.convert("L")), return_counts=True)
    return dict(zip(levels.tolist(), counts.tolist(), strict=True))


def test_panels_share_the_window(tmp_path):
    path = tmp_path / "figure.png"
    save_comparison(path, IMAGES)
    levels = panels(path)
    # Lower end of the lung window black, upper end white.
    assert levels[0] > 0.1 * sum(levels.values())
    middle = {"a": np.full((40, 50), -600.0)}
    save_comparison(path, middle)
    levels = panels(path)
    del levels[255]
    assert max(levels, key=levels.__getitem__) in (127, 128)


@pytest.mark.slow
def test_rows_grow_with_inset_and_reference(tmp_path):
    heights = []
    for options in (
        {},
        {"inset": (5, 5, 10)},
        {"inset": (5, 5, 10), "reference": "label"},
    ):
        path = tmp_path / "figure.png"
        save_comparison(path, IMAGES, captions={"input": "PSNR 20"}, **options)
        with Image.open(path) as image:
            heights.append(image.height)
    assert heights[0] < heights[1] < heights[2]
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_comparison(path, IMAGES)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ({}, {}, "no image to show"),
        (IMAGES | {"x": np.zeros((4, 4))}, {}, "of one size, got"),
        ({"x": np.zeros((1, 4, 4))}, {}, r"must be \(h, w\)"),
        (IMAGES, {"reference": "truth"}, r"no image is called \['truth'\]"),
        (IMAGES, {"captions": {"v1": ""}}, r"no image is called \['v1'\]"),
        (IMAGES, {"inset": (35, 0, 10)}, "not inside 40x50"),
    ],
)
def test_bad_figures_are_refused(tmp_path, images, options, message):
    with pytest.raises(ValueError, match=message):
        save_comparison(tmp_path / "figure.png", images, **options)

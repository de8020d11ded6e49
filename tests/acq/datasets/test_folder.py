import numpy as np
import pytest
from PIL import Image

from acq.datasets import opening
from acq.datasets.decoding import Framing, read_image
from acq.datasets.opening import open_eval_data
from acq.datasets.unusable import reporting_all_unusable
from common.errors import UserError
from tests.acq.eval_settings import eval_settings, record_of


def _pixels(seed, height=4, width=4, channels=3):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def _write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "val"
    for seed, name in enumerate(["b/2.png", "b/1.PNG", "a/deep/er/0.bmp", "c/x.png"]):
        _write(root / name, _pixels(seed))
    (root / "b" / "notes.txt").write_text("no image")
    (root / "b" / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / "list.txt").write_text("")
    return root


def test_classes_are_the_subfolders_sorted_by_name(folder):
    data = open_eval_data(eval_settings(path=folder), record_of())
    np.testing.assert_array_equal(data.labels, [0, 1, 1, 2])
    np.testing.assert_array_equal(
        data.images[:], np.stack([_pixels(seed) for seed in (2, 1, 0, 3)])
    )


@pytest.mark.parametrize(
    ("names", "order", "said"),
    [
        ([str(k) for k in range(12)], range(12), "sorted by number: label 2 is 2. As"),
        (["007", "010", "101"], (7, 10, 101), "sorted by number: 007, 010, 101"),
        (["2", "10", "b"], (10, 2, "b"), "sorted by name: 10, 2, b"),
        (["2", "10", "3\u00b2"], (10, 2, "3\u00b2"), "sorted by name: 10, 2, 3"),
    ],
)
def test_classes_that_are_numbers_are_sorted_as_such(
    tmp_path, caplog, names, order, said
):
    """Label k is the k-th class of the order, which is logged."""
    for seed, name in enumerate(names):
        _write(tmp_path / name / "x.png", _pixels(seed))
    with caplog.at_level("INFO", logger="absl"):
        data = open_eval_data(
            eval_settings(path=tmp_path), record_of(classes=len(names))
        )
    place = {name.lstrip("0") or "0": seed for seed, name in enumerate(names)}
    expected = np.stack([_pixels(place[str(name)]) for name in order])
    np.testing.assert_array_equal(data.images[:], expected)
    assert said in caplog.text


def test_another_order_of_classes_comes_from_a_file(folder, tmp_path):
    order = tmp_path / "order.txt"
    order.write_text("d\nc\n\nb \na\n")
    teacher = record_of(classes=4)
    data = open_eval_data(eval_settings(path=folder, classes=order), teacher)
    np.testing.assert_array_equal(data.labels, [1, 2, 2, 3])
    for text, message in (
        ("d\nc\nb\nz\n", "a are not in"),
        ("c\nb\na\n", "3 classes.*the teacher has 4"),
        ("c\nb\na\nc\n", "names c more than once"),
    ):
        order.write_text(text)
        with pytest.raises(UserError, match=message):
            open_eval_data(eval_settings(path=folder, classes=order), teacher)
    order.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not readable as text"):
        open_eval_data(eval_settings(path=folder, classes=order), teacher)


def test_large_folders_are_read_when_asked_for(folder, monkeypatch):
    held = open_eval_data(eval_settings(path=folder), record_of())
    monkeypatch.setattr(opening, "_HELD_BYTES", 0)
    data = open_eval_data(eval_settings(path=folder), record_of())
    assert not isinstance(data.images, np.ndarray)
    np.testing.assert_array_equal(data.images[1:], held.images[1:])
    assert data.images[np.arange(0)].shape == (0, 4, 4, 3)
    (folder / "c/x.png").write_bytes(b"damaged since")
    assert data.images[:3].shape == (3, 4, 4, 3)
    with pytest.raises(UserError, match=r"x\.png: not readable as an image"):
        data.images[np.array([3])]


@pytest.mark.parametrize("held_bytes", [0, 1 << 28])
def test_all_unusable_files_are_told_at_once(tmp_path, monkeypatch, held_bytes):
    monkeypatch.setattr(opening, "_HELD_BYTES", held_bytes)
    for seed in range(30):
        _write(tmp_path / "abc"[seed % 3] / f"{seed:02}.jpg", _pixels(seed, 64, 64))
    for seed in range(1, 14):
        path = tmp_path / "abc"[seed % 3] / f"{seed:02}.jpg"
        path.write_bytes(path.read_bytes()[: -1 if seed == 1 else -200])
    config, teacher = eval_settings(path=tmp_path), record_of(size=64)
    with pytest.raises(UserError, match="13 of 30 evaluation images") as error:
        data = open_eval_data(config, teacher)
        with reporting_all_unusable(data.images):
            data.images[:]
    lines = str(error.value).splitlines()
    assert len(lines) == 12 and lines[-1] == "  and 3 more"
    assert "03.jpg: not readable as an image" in lines[1]


def test_a_limit_reads_no_others(folder):
    (folder / "b/1.PNG").write_bytes(b"never read")
    data = open_eval_data(eval_settings(path=folder, limit=3), record_of())
    np.testing.assert_array_equal(data.labels, [0, 1, 2])


def test_folders_of_another_layout_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"3 classes \(a, b, c\), the teacher has 5"):
        open_eval_data(eval_settings(path=folder), record_of(classes=5))
    with pytest.raises(UserError, match="no subfolders"):
        open_eval_data(eval_settings(path=folder / "c"), record_of())
    for name in "abc":
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="no images"):
        open_eval_data(eval_settings(path=tmp_path / "empty"), record_of())


def test_files_of_another_size_are_refused_and_told_of_resize(folder):
    _write(folder / "a/deep/0.png", _pixels(9, 5, 4))
    with pytest.raises(UserError, match=r"0\.png: 4 x 5 pixels.*eval\.resize=0\.875"):
        open_eval_data(eval_settings(path=folder), record_of())
    data = open_eval_data(eval_settings(path=folder, resize=0.5), record_of())
    assert data.images[:].shape == (5, 4, 4, 3)


@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 301), (64, 64)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_framing_is_that_of_imagenet(tmp_path, height, width, interpolation):
    path = tmp_path / "image.png"
    _write(path, _pixels(0, height, width))
    framing = Framing(size=56, channels=3, resize=0.875, interpolation=interpolation)
    # Short side 64; the long one cut to whole pixels; the middle 56 of both.
    scale = 64 / min(height, width)
    resized = Image.open(path).resize(
        (int(width * scale + 1e-9), int(height * scale + 1e-9)),
        getattr(Image.Resampling, interpolation.upper()),
    )
    top, left = (round((side - 56) / 2) for side in (resized.height, resized.width))
    wanted = np.asarray(resized)[top : top + 56, left : left + 56]
    np.testing.assert_array_equal(read_image(path, framing, "x"), wanted)
    content = path.read_bytes()
    np.testing.assert_array_equal(read_image(content, framing, "x"), wanted)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_become_the_channels_that_the_teacher_takes(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    grey = Image.fromarray(_pixels(0, channels=1))
    image = grey.convert(mode)
    transparent = {"transparency": bytes(range(200))} if mode == "P" else {}
    image.save(path, **transparent)
    rgb = read_image(path, Framing(size=4, channels=3), "x")
    np.testing.assert_array_equal(rgb, np.asarray(image.convert("RGB")))
    one = read_image(path, Framing(size=4, channels=1), "x")
    np.testing.assert_array_equal(one[..., 0], np.asarray(image.convert("L")))


def test_files_that_are_no_8_bit_images_are_refused(tmp_path):
    framing = Framing(size=4, channels=3)
    path = tmp_path / "image.png"
    Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000).save(path)
    with pytest.raises(UserError, match="mode 'I;16', which has more than 8 bits"):
        read_image(path, framing, "x")
    _write(path, _pixels(0, 64, 64))
    for content in (b"", b"text", path.read_bytes()[:-3000]):
        with pytest.raises(UserError, match="x: not readable as an image"):
            read_image(content, Framing(size=64, channels=3), "x")
    with pytest.raises(UserError, match="takes images of 2 channels"):
        Framing(size=4, channels=2)

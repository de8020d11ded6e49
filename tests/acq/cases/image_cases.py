"""Evaluation images, right and wrong, for a teacher of twelve colours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.acq.cases.case import Build, Case
from tests.acq.cases.coloured_teacher import (
    CLASSES,
    MEAN,
    STD,
    coloured_images,
    write_teacher,
)

_Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
_NOT_PREPARED = "not prepared as the teacher's training images were"
_REFUSED = ("guessing one of 12 classes", "leave config.eval.path")


def _of_arrays(
    change: _Change = lambda images, labels: (images, labels),
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Build:
    """An .npz of changed images and labels, for a teacher with this mean and std."""

    def build(folder: Path) -> list[str]:
        images, labels = change(*coloured_images(seed=2))
        np.savez(folder / "eval.npz", images=images, labels=labels)
        given = [f"--config.eval.path={folder / 'eval.npz'}"]
        return [*write_teacher(folder, mean, std), *given]

    return build


def _labels(change: Callable[[np.ndarray], np.ndarray]) -> Build:
    return _of_arrays(lambda images, labels: (images, change(labels)))


def _of_folder(
    names: Callable[[int], str] = lambda k: f"{k:02}",
    spoil: Callable[[list[Path]], None] = lambda files: None,
    order: tuple[str, ...] = (),
) -> Build:
    """A folder of JPEG files, a subfolder a class; some of them spoilt."""

    def build(folder: Path) -> list[str]:
        files = []
        for i, (image, label) in enumerate(zip(*coloured_images(seed=2), strict=True)):
            path = folder / "val" / names(int(label)) / f"{i:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=95)
            files.append(path)
        spoil(files)
        given = [f"--config.eval.path={folder / 'val'}"]
        if order:
            (folder / "order.txt").write_text("\n".join(order))
            given.append(f"--config.eval.classes={folder / 'order.txt'}")
        return [*write_teacher(folder), *given]

    return build


def _cut_short(files: list[Path]) -> None:
    for path in files[5:18]:
        path.write_bytes(path.read_bytes()[:-30])


def _destroy_one(files: list[Path]) -> None:
    files[7].write_bytes(b"<html>404</html>")


def _make_16_bit(files: list[Path]) -> None:
    pixels = np.full((16, 16), 40_000, np.uint16)
    Image.fromarray(pixels).save(files[3].with_suffix(".png"))


def _enlarge_one(files: list[Path]) -> None:
    Image.new("RGB", (20, 16)).save(files[3])


def _in_255(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(255 * value, 2) for value in values)


_RIGHT = {
    "right": (_of_arrays(), ()),
    "ten_images": (_of_arrays(lambda x, y: (x[:10], y[:10])), ()),
    "grey_levels_differ": (
        _of_arrays(lambda x, y: (np.clip(x.astype(int) + 4, 0, 255).astype("u1"), y)),
        (),
    ),
    "three_images_of_other_labels": (
        _of_arrays(lambda x, y: (x[:3], (y[:3] + 1) % CLASSES)),
        ("too few to tell it from guessing (46 do)",),
    ),
    "folder": (_of_folder(), ("sorted by number",)),
    "folder_of_numbers": (
        _of_folder(str),
        ("sorted by number: label 2 is 2", "torchvision's ImageFolder"),
    ),
    "folder_of_names": (_of_folder(lambda k: f"n{k:02}"), ("sorted by name",)),
    "mean_and_std_of_others": (
        _of_arrays(mean=(0.9, 0.9, 0.9), std=(0.5, 0.5, 0.5)),
        (_NOT_PREPARED,),
    ),
    "blue_green_red": (
        _of_arrays(lambda x, y: (x[..., ::-1], y)),
        ("another order: with red and blue swapped",),
    ),
}
"""Right cases and texts of the log; without texts there is no warning."""

_REFUSED_CASES = {
    "mean_and_std_in_255": (
        _of_arrays(mean=_in_255(MEAN), std=_in_255(STD)),
        ("config.teacher.mean", "divide by 255"),
    ),
    "images_from_0_to_255": (
        _of_arrays(mean=(0.0,) * 3, std=(0.00392,) * 3),
        (*_REFUSED, _NOT_PREPARED, "perhaps: config.teacher.mean and std"),
    ),
    "labels_from_one_around": (
        _labels(lambda labels: (labels + 1) % CLASSES),
        (*_REFUSED, "labels seem to be in another order", "0 is its 11"),
    ),
    "labels_at_random": (
        _labels(lambda labels: np.random.default_rng(0).permutation(labels)),
        (*_REFUSED, "the images fit its BatchNorm statistics", "perhaps: labels"),
    ),
    "folder_in_the_order_of_text": (
        _of_folder(str, order=tuple(sorted(str(k) for k in range(CLASSES)))),
        (*_REFUSED, "labels seem to be in another order"),
    ),
    "jpegs_cut_short": (
        _of_folder(spoil=_cut_short),
        ("13 of 144 evaluation images cannot be used", ".jpg", "and 3 more"),
    ),
    "text_as_jpeg": (
        _of_folder(spoil=_destroy_one),
        ("1 of 144 evaluation images", "007.jpg: not readable as an image"),
    ),
    "image_of_16_bits": (
        _of_folder(spoil=_make_16_bit),
        ("1 of 145 evaluation images", "more than 8 bits"),
    ),
    "image_of_another_size": (
        _of_folder(spoil=_enlarge_one),
        ("1 of 144 evaluation images", "20 x 16 pixels", "--config.eval.resize"),
    ),
}

IMAGE_CASES = (
    *(
        Case(
            name=name,
            build=build,
            outcome="right",
            expected=expected,
            forbidden=("Traceback", "the teacher seems", "labels seem", "not prepared")
            if not expected
            else ("Traceback",),
        )
        for name, (build, expected) in _RIGHT.items()
    ),
    *(
        Case(name=name, build=build, expected=expected)
        for name, (build, expected) in _REFUSED_CASES.items()
    ),
)

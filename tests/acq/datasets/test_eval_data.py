import dataclasses

import numpy as np
import pytest

from acq.datasets.eval_data import EvalData, spread_by_class
from acq.datasets.opening import open_eval_data
from acq.tasks.rules import EVAL_RULES
from common.config import ConfigDict, rule_problems
from common.errors import UserError
from tests.acq.eval_settings import eval_settings, record_of

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3)).astype(np.uint8)
LABELS = np.arange(9) % 3


def _load(tmp_path, teacher=None, limit=0, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **{"images": IMAGES, "labels": LABELS} | arrays)
    return open_eval_data(eval_settings(path=path, limit=limit), teacher or record_of())


def test_arrays_of_an_npz_are_what_is_evaluated_on(tmp_path):
    data = _load(tmp_path, class_names=np.array(["a", "b", "c"]))
    np.testing.assert_array_equal(data.images[np.array([8, 1])], IMAGES[[8, 1]])
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.labels.dtype == np.int32 and data.classes == 3 and len(data) == 9
    assert data.name.endswith("data.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_labels_are_any_whole_numbers(tmp_path, dtype):
    assert _load(tmp_path, labels=LABELS.astype(dtype)).labels.dtype == np.int32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES / 255.0}, "images are float64, accepted: uint8"),
        ({"images": IMAGES.astype(np.int64)}, "images are int64, accepted: uint8"),
        ({"images": IMAGES[:, :3]}, "9 x 3 x 4 x 3, the teacher takes 9 x 4 x 4 x 3"),
        ({"images": IMAGES[..., :1]}, "9 x 4 x 4 x 1, the teacher takes 9 x 4 x 4 x 3"),
        ({"images": IMAGES[0, 0, 0, 0]}, "the teacher takes"),
        (
            {"images": IMAGES.transpose(0, 3, 1, 2)},
            r"Channels come last: images\.transpose\(0, 2, 3, 1\)",
        ),
        ({"labels": LABELS.astype(float)}, "labels are float64 of shape"),
        ({"labels": LABELS[:5]}, r"shape \(5,\), accepted: 9 whole numbers"),
        ({"labels": LABELS[:, None]}, r"shape \(9, 1\), accepted"),
        ({"labels": LABELS + 1}, "labels from 1 to 3, the teacher's 3 classes are 0"),
        ({"labels": LABELS - 1}, "labels from -1 to 1"),
        ({"labels": LABELS.astype(object)}, "holds Python objects"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "no images"),
        ({"class_names": np.array(["a", "b"])}, "data of 2 classes, the teacher has 3"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        _load(tmp_path, **arrays)


def test_a_missing_axis_of_channels_is_told(tmp_path):
    with pytest.raises(UserError, match=r"images\[\.\.\., None\]"):
        _load(tmp_path, record_of(channels=1), images=IMAGES[..., 0])


def test_files_that_are_no_npz_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=IMAGES, labels=LABELS)
    with pytest.raises(UserError, match=r"no images in it; it has x, labels"):
        open_eval_data(eval_settings(path=path), record_of())
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:200] + bytes(50) + whole[250:])
    with pytest.raises(UserError, match=r"damaged|no images"):
        open_eval_data(eval_settings(path=path), record_of())
    for content in (b"", b"PK", whole[:middle], b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"is not an \.npz.*uint8 `n h w c`"):
            open_eval_data(eval_settings(path=path), record_of())


def test_a_path_goes_before_a_dataset(tmp_path):
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=LABELS)
    config = eval_settings(path=tmp_path / "data.npz", dataset="digits")
    assert len(open_eval_data(config, record_of())) == 9


def test_nothing_configured_is_no_data():
    assert open_eval_data(eval_settings(), record_of()) is None


def test_the_digits_are_of_the_digits_teacher():
    data = open_eval_data(
        eval_settings(dataset="digits", limit=50), record_of(28, 1, classes=10)
    )
    np.testing.assert_array_equal(np.bincount(data.labels), [5] * 10)
    assert data.images[:2].shape == (2, 28, 28, 1)
    with pytest.raises(UserError, match="digits: images are 1000 x 28 x 28 x 1"):
        open_eval_data(eval_settings(dataset="digits"), record_of(32, 1, classes=10))
    with pytest.raises(UserError, match="data of 10 classes, the teacher has 3"):
        open_eval_data(eval_settings(dataset="digits"), record_of(28, 1))


def test_a_limit_takes_evenly_of_every_class(tmp_path):
    data = _load(tmp_path, limit=6)
    np.testing.assert_array_equal(np.bincount(data.labels), [2, 2, 2])
    np.testing.assert_array_equal(data.images[:], data.images[np.arange(6)])
    for image, label in zip(data.images[:], data.labels, strict=True):
        (place,) = np.flatnonzero((image == IMAGES).all((1, 2, 3)))
        assert LABELS[place] == label
    assert len(_load(tmp_path, limit=100)) == 9


@pytest.mark.parametrize("order", ["sorted", "cyclic", "random"])
def test_spread_keeps_the_classes_frequencies_in_any_order(order):
    labels = np.repeat(np.arange(4), [40, 20, 20, 80])
    if order == "cyclic":
        labels = np.tile([0, 1, 2, 3], 40)
    elif order == "random":
        labels = np.random.default_rng(1).permutation(labels)
    places = spread_by_class(labels, 16)
    wanted = np.bincount(labels) // 10
    np.testing.assert_array_equal(np.bincount(labels[places]), wanted)
    assert (np.diff(places) > 0).all()
    np.testing.assert_array_equal(spread_by_class(labels, 500), np.arange(160))


def test_spread_of_data_reads_only_what_it_chose():
    data = EvalData(name="x", images=IMAGES, labels=LABELS.astype(np.int32), classes=3)
    chosen = data.spread(3)
    assert len(chosen) == len(chosen.images) == 3 and data.spread(0) is data
    again = chosen.spread(2)
    assert again.images[np.array([1])].shape == (1, 4, 4, 3)


def test_rules_name_what_is_not_accepted():
    settings = eval_settings(
        dataset="mnist", resize=1.5, interpolation="nearest", limit=-1
    )
    config = ConfigDict({"eval": dataclasses.asdict(settings)})
    problems = "\n".join(rule_problems(config, EVAL_RULES))
    for key in ("dataset: got 'mnist'", "resize", "interpolation", "limit"):
        assert f"eval.{key}" in problems
    right = ConfigDict({"eval": dataclasses.asdict(eval_settings())})
    assert not rule_problems(right, EVAL_RULES)

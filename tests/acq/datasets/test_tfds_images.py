import hashlib
import io
import sys
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from acq.datasets import cifar_archive, tfds_images
from acq.datasets.cifar_archive import ARCHIVES, CifarTest
from acq.datasets.opening import open_eval_data
from common import dataset
from common.errors import UserError
from tests.acq.eval_settings import eval_settings, record_of


def _pixels(seed, height, width):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


class SmallImages(tfds.core.GeneratorBasedBuilder):
    """Images of several sizes, like those of ImageNet."""

    VERSION = tfds.core.Version("5.1.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(2),
            "validation": self._generate_examples(12),
        }

    def _generate_examples(self, count):
        for i in range(count):
            file = io.BytesIO()
            Image.fromarray(_pixels(i, 8 + i % 2, 8)).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "label": i % 3}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small dataset in the folder that TFDS uses for ImageNet."""
    cache = tmp_path_factory.mktemp("cache")
    builder = SmallImages(data_dir=cache)
    dataset.prepare(builder)
    builder.data_path.parent.rename(cache / "imagenet2012")
    return cache


@pytest.fixture(autouse=True)
def no_other_datasets(monkeypatch, tmp_path):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "none"))


def test_a_prepared_dataset_is_read_without_tensorflow(prepared):
    data = open_eval_data(
        eval_settings(prepared, dataset="imagenet2012", resize=1.0), record_of(8)
    )
    np.testing.assert_array_equal(data.labels, np.arange(12) % 3)
    np.testing.assert_array_equal(data.images[2], _pixels(2, 8, 8))
    assert data.name == "imagenet2012 validation"
    assert "tensorflow" not in sys.modules


def test_a_prepared_folder_is_a_path_as_well(prepared):
    path = prepared / "imagenet2012/5.1.0"
    data = open_eval_data(eval_settings(path=path, resize=1.0, limit=4), record_of(8))
    np.testing.assert_array_equal(data.labels, [0, 0, 0, 0])  # places 0, 3, 6, 9
    data = open_eval_data(
        eval_settings(path=path, resize=1.0, split="train[:1]"), record_of(8)
    )
    assert len(data) == 1


@pytest.mark.parametrize(
    ("changes", "teacher", "message"),
    [
        ({}, {"size": 8}, "record 1: 8 x 9 pixels.*eval.resize"),
        ({"resize": 1.0}, {"classes": 5}, "data of 3 classes, the teacher has 5"),
        ({"split": "test"}, {}, "no split 'test'.*'validation': 12"),
        ({"split": "train[:x]"}, {}, r"eval\.split: got 'train\[:x\]'"),
    ],
)
def test_what_does_not_fit_is_refused(prepared, changes, teacher, message):
    with pytest.raises(UserError, match=message):
        open_eval_data(
            eval_settings(prepared, dataset="imagenet2012", **changes),
            record_of(**teacher),
        )


def test_a_dataset_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"tfds build imagenet2012.*config\.eval\.path"):
        open_eval_data(eval_settings(tmp_path, dataset="imagenet2012"), record_of())


def test_a_format_that_needs_tensorflow_is_refused(prepared, monkeypatch):
    def fail(*args, **kwargs):
        raise NotImplementedError("TFRECORD")

    monkeypatch.setattr(tfds_images, "load_split", fail)
    with pytest.raises(UserError, match="--file_format=array_record"):
        open_eval_data(eval_settings(prepared, dataset="imagenet2012"), record_of())


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """CIFAR-100's archive with six test images, and their rows."""
    published = ARCHIVES["cifar100"]
    rows = np.random.default_rng(0).integers(0, 256, (6, 2 + 3072)).astype(np.uint8)
    rows[:, 1] = np.arange(6) * 19
    path = tmp_path / "cache" / "downloads" / published.file
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(published.member)
        member.size = rows.nbytes
        tar.addfile(member, io.BytesIO(rows.tobytes()))
    small = cifar_archive.dataclasses.replace(
        published, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    monkeypatch.setattr(cifar_archive, "ARCHIVES", {"cifar100": small})
    return path, rows


def test_cifar_is_made_of_its_archive_once(archive, tmp_path):
    path, rows = archive
    config = eval_settings(tmp_path / "cache", dataset="cifar100")
    for _ in range(2):
        data = open_eval_data(config, record_of(32, classes=100))
        np.testing.assert_array_equal(data.labels, rows[:, 1])
        planes = rows[:, 2:].reshape(6, 3, 32, 32)
        np.testing.assert_array_equal(data.images[:], planes.transpose(0, 2, 3, 1))
        path.unlink(missing_ok=True)  # not needed a second time
    assert "tensorflow" not in sys.modules


def test_another_archive_is_refused(archive, tmp_path):
    archive[0].write_bytes(b"something else")
    config = eval_settings(tmp_path / "cache", dataset="cifar100")
    with pytest.raises(UserError, match="not the published file"):
        open_eval_data(config, record_of(32, classes=100))


@pytest.mark.parametrize("online", [True, False])
def test_the_archive_is_fetched_whole_or_not_at_all(
    archive, tmp_path, monkeypatch, online
):
    path, rows = archive
    content = path.read_bytes()
    path.unlink()
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        if online:
            return io.BytesIO(content)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    config = eval_settings(tmp_path / "cache", dataset="cifar100", limit=2)
    if online:
        data = open_eval_data(config, record_of(32, classes=100))
        np.testing.assert_array_equal(data.labels, rows[[0, 3], 1])
        assert path.read_bytes() == content
    else:
        with pytest.raises(UserError, match=r"no network.*put it at .*config\.eval"):
            open_eval_data(config, record_of(32, classes=100))
        assert not [found for found in path.parent.iterdir() if found.is_file()]
        assert not dataset.is_prepared(
            CifarTest(config="cifar100", data_dir=tmp_path / "cache")
        )
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"]


def test_published_archives_are_those_that_tfds_knows():
    for name, found in ARCHIVES.items():
        text = (tfds.core.tfds_path() / f"url_checksums/{name}.txt").read_text()
        assert found.url in text and found.sha256 in text

from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from common import dataset
from common.errors import UserError
from common.folder_lock import hold_folder
from ipv2.datasets import pair


class TinyPairs(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    fail_at = -1

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=pair.pair_features(has_truth=True),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(5):
            if index == self.fail_at:
                raise KeyboardInterrupt
            image = np.full((3, 4 + index), -1000.4 + index)
            yield (
                index,
                pair.pair_record(
                    lq=image,
                    gt=image + 1,
                    truth=image + 2,
                    spacing_mm=(0.5, 0.75),
                    patient="p",
                    name="v",
                    slice_index=index,
                ),
            )


def test_records_are_read_in_order_and_exactly(tmp_path, capsys):
    source = dataset.load_split(TinyPairs(data_dir=str(tmp_path)), "train")
    assert len(source) == 5
    for index in range(5):
        record = source[index]
        assert record["lq"].dtype == np.int16
        np.testing.assert_array_equal(
            record["lq"], np.full((3, 4 + index), -1000 + index)
        )
        np.testing.assert_array_equal(record["gt"], record["lq"] + 1)
        np.testing.assert_array_equal(record["truth"], record["lq"] + 2)
        np.testing.assert_array_equal(record["spacing_mm"], np.float32([0.5, 0.75]))
        assert record["slice"] == index
        assert record["patient"] == b"p" and record["name"] == b"v"
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")


def test_an_interrupted_build_leaves_nothing_and_the_next_one_starts_again(tmp_path):
    builder = TinyPairs(data_dir=str(tmp_path))
    builder.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        dataset.prepare(builder)
    assert not dataset.is_prepared(builder)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(dataset.load_split(TinyPairs(data_dir=str(tmp_path)), "train")) == 5


def test_the_message_of_an_unknown_split_lists_the_splits(tmp_path):
    with pytest.raises(UserError, match=r"no split 'test'.*'train': 5"):
        dataset.load_split(TinyPairs(data_dir=str(tmp_path)), "test")


def test_truth_is_in_the_features_only_with_has_truth():
    assert "truth" in pair.pair_features(has_truth=True)
    assert "truth" not in pair.pair_features(has_truth=False)


@pytest.mark.parametrize(
    ("hu", "want"), [(0.5, 0), (1.5, 2), (-1024.4, -1024), (32767, 32767)]
)
def test_hu_rounds_to_nearest_even(hu, want):
    got = pair.hu_to_int16(np.array([hu]), name="x")
    assert got.dtype == np.int16 and got[0] == want


@pytest.mark.parametrize(
    ("hu", "message"),
    [
        (np.nan, "a.nii.*1 of 1 pixels are not finite"),
        (32768.0, "a.nii.*32768.*int16"),
        (-40000, "a.nii.*-40000"),
    ],
)
def test_hu_that_does_not_fit_is_refused(hu, message):
    with pytest.raises(UserError, match=message):
        pair.hu_to_int16(np.array([hu]), name="a.nii")


def test_a_pair_of_two_sizes_is_refused():
    with pytest.raises(UserError, match=r"v, slice 3.*\(4, 4\).*\(4, 5\)"):
        pair.pair_record(
            lq=np.zeros((4, 4)),
            gt=np.zeros((4, 5)),
            spacing_mm=(1, 1),
            patient="p",
            name="v",
            slice_index=3,
        )


def test_spacing_must_be_two_positive_numbers():
    with pytest.raises(ValueError, match="spacing_mm"):
        pair.place_record(spacing_mm=(1, 0), patient="p", name="v", slice_index=0)


def test_two_commands_do_not_build_one_dataset_at_once(tmp_path):
    builder = TinyPairs(data_dir=str(tmp_path))
    with (
        hold_folder(Path(builder.data_path).parent, "building tiny_pairs"),
        pytest.raises(
            UserError, match=r"building tiny_pairs: another command is at work"
        ),
    ):
        dataset.prepare(builder)
    dataset.prepare(builder)
    assert dataset.is_prepared(builder)


def test_an_unknown_spacing_is_nan_and_a_wrong_one_is_refused():
    place = {"patient": "p", "name": "v", "slice_index": 0}
    assert np.isnan(pair.place_record(spacing_mm=None, **place)["spacing_mm"]).all()
    for wrong in ((0.0, 1.0), (1.0,), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="above 0 mm"):
            pair.place_record(spacing_mm=wrong, **place)

"""Embedded scans: whole or not there, and those that are asked for."""

import pytest

from common.errors import UserError
from configs import simulate as recipe
from ipv2.ct_io import read_volume
from ipv2.tasks import embedded_scans
from ipv2.tasks.embedded_scans import write_embedded


def _data(**changes):
    data = recipe.get_config("smoke").data
    data.phantom_size, data.phantom_slices = 32, 2
    data.update(changes)
    return data


@pytest.mark.slow
def test_another_phantom_is_another_folder(tmp_path):
    for size, slices in ((32, 2), (32, 1)):
        data = _data(phantom_size=size, phantom_slices=slices)
        path = write_embedded("phantom", data, tmp_path)
        assert read_volume(path).hu.shape == (slices, size, size)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_what_is_there_is_taken(tmp_path, monkeypatch):
    path = write_embedded("phantom", _data(), tmp_path)
    monkeypatch.setattr(embedded_scans, "_write_phantom", None)
    assert write_embedded("phantom", _data(), tmp_path) == path


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("full")])
def test_what_is_begun_is_not_taken_for_the_whole(tmp_path, monkeypatch, error):
    write = embedded_scans._write_phantom

    def stops(data, path):
        write(data, path)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(embedded_scans, "_write_phantom", stops)
        with pytest.raises(KeyboardInterrupt if error.args == () else UserError):
            write_embedded("phantom", _data(), tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(read_volume(write_embedded("phantom", _data(), tmp_path)).hu) == 2


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "input").touch()
    with pytest.raises(UserError, match=r"input/phantom_32x2: cannot be written"):
        write_embedded("phantom", _data(), tmp_path / "input")

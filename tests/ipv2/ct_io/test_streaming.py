"""Reading and writing slice by slice gives the values and files of whole volumes."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from common.errors import UserError
from ipv2 import ct_io
from tests.ipv2.ct_files import make_series
from tests.peak_memory import MEMORY

IMAGES = ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd"]
OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def volume_of(shape=(5, 6, 7), integer=True, **fields):
    hu = np.random.default_rng(0).integers(-1000, 2000, shape).astype(np.float32)
    return ct_io.Volume(
        hu=hu if integer else hu + 0.25,
        spacing_mm=(2.5, 0.7, 0.8),
        origin_mm=(-5.0, 7.5, 100.25),
        direction=OBLIQUE,
        integer=integer,
        **fields,
    )


def content(path):
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("integer", [True, False])
def test_files_are_byte_by_byte_those_of_simpleitk(tmp_path, name, count, integer):
    tags = {"note": "kept"} if name != "a.nii.gz" else {}
    kind = ct_io.SUFFIXES[ct_io.suffix_of(Path(name))]
    volume = volume_of((count, 6, 7), integer, tags=tags, format=kind)
    ours = ct_io.write_volume(volume, tmp_path / "ours" / name)
    image = sitk.GetImageFromArray(volume.hu.astype(np.int16 if integer else "f4"))
    image.SetSpacing((0.8, 0.7, 2.5))
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(OBLIQUE)
    if kind != "nifti":
        image.SetMetaData("note", "kept")
    theirs = tmp_path / name
    sitk.WriteImage(image, theirs)
    assert content(ours) == content(theirs)
    if kind == "mhd":
        assert content(ours.with_suffix(".raw")) == content(theirs.with_suffix(".raw"))
    assert len(list(ours.parent.iterdir())) == (2 if kind == "mhd" else 1)


@pytest.mark.parametrize("name", [*IMAGES, "packed.mha", "packed.nrrd", "series"])
def test_slices_read_alone_are_those_of_the_volume(tmp_path, name):
    path = tmp_path / name
    if name == "series":
        make_series(path, 4, padding=9)
    elif name.startswith("packed"):
        image = sitk.GetImageFromArray(volume_of().hu.astype(np.int16))
        sitk.WriteImage(image, path, useCompression=True)
    else:
        ct_io.write_volume(volume_of(), path)
    volume = ct_io.read_volume(path)
    with ct_io.open_volume(path) as source:
        assert source.shape == volume.shape
        for field in ("spacing_mm", "direction", "origin_mm", "format", "name", "tags"):
            assert getattr(source, field) == getattr(volume, field), field
        for index in (2, 0, 3):  # in any order
            found = source.read(index)
            np.testing.assert_array_equal(found.hu, volume.hu[index])
            assert found.header == (volume.headers[index] if volume.headers else None)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("keep", [0.1, 0.6, 0.99])
@pytest.mark.parametrize("packed", [True, False])
def test_truncation_is_refused_when_a_file_is_unpacked(tmp_path, name, keep, packed):
    path = tmp_path / name
    image = sitk.GetImageFromArray(volume_of((4, 32, 32)).hu.astype(np.int16))
    sitk.WriteImage(image, path, useCompression=packed)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=name), ct_io.open_volume(path) as source:
        for index in range(4):
            source.read(index)


def test_values_that_only_itk_finds_are_read_all_the_same(tmp_path):
    image = sitk.GetImageFromArray(volume_of().hu.astype(np.int16))
    sitk.WriteImage(image, tmp_path / "a.nhdr", useCompression=True)
    detached = tmp_path / "a.nrrd"  # NRRD's two names are one format
    (tmp_path / "a.nhdr").rename(detached)
    with ct_io.open_volume(detached) as source:
        np.testing.assert_array_equal(source.read(3).hu, volume_of().hu[3])


def test_a_slice_holds_padding_and_stored_values(tmp_path):
    volume = volume_of()
    volume.hu[1, 2, 3] = -3024
    ct_io.write_volume(volume, tmp_path / "a.nii")
    with ct_io.open_volume(tmp_path / "a.nii") as source:
        found = source.read(1)
    assert found.hu[2, 3] == ct_io.PADDING_HU and found.stored[2, 3] == -3024
    assert np.count_nonzero(found.hu != found.stored) == 1


def test_a_damaged_slice_is_refused_when_it_is_read(tmp_path):
    path = ct_io.write_volume(volume_of(integer=False), tmp_path / "a.mha")
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with ct_io.open_volume(path, ct_io.ReadOptions(trust_hu=True)) as source:
        source.read(3)
        with pytest.raises(UserError, match=r"a\.mha: 1 of 42 pixels are not finite"):
            source.read(4)


@pytest.mark.parametrize("name", ["series", "a.nii.gz", "a.mha"])
@pytest.mark.parametrize("written", [2, 6])
def test_a_volume_of_another_length_is_never_written(tmp_path, name, written):
    volume = volume_of()
    with (
        pytest.raises(ValueError, match="slice"),
        ct_io.slice_writer(volume, volume.shape, tmp_path / name) as write,
    ):
        for index in range(written):
            write(volume.hu[index % 5], None)
    assert list(tmp_path.iterdir()) == []


_COPY = f"""{MEMORY}
import sys
import ipv2.ct_io as ct_io
read, write = sys.argv[1:]
before = memory_mb('VmHWM')
with ct_io.open_volume(read) as source:
    with ct_io.slice_writer(source, source.shape, write, format=source.format) as put:
        for index in range(source.shape[0]):
            put(*source.read(index)[1:])
print(memory_mb('VmHWM') - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["series", *IMAGES, "packed.mha", "packed.nrrd"])
def test_copying_slice_by_slice_holds_a_few_slices(tmp_path, name):
    volume = volume_of((200, 256, 256))
    path = ct_io.write_volume(volume, tmp_path / "in" / name)
    if name.startswith("packed"):
        sitk.WriteImage(sitk.ReadImage(path), path, useCompression=True)
    command = [sys.executable, "-c", _COPY, path, tmp_path / "out" / name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # A slice is 0.25 MB as float32, the volume 50 MB, 25 MB as stored: twice that is
    # held where it is read whole. What is allowed holds what SimpleITK and pydicom load
    # at their first use, buffers of 1 MB, and a few slices.
    assert float(done.stdout) < 15, done.stdout

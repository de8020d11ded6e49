"""Tests of ipv2.measures.clean_fid."""

import hashlib
import importlib

import numpy as np
import pytest

from common.errors import UserError
from ipv2.measures import clean_fid
from ipv2.measures.clean_fid import Weights, fetch_weights, weights_folder


def _published(tmp_path, content: bytes = b"weights", sha256: str | None = None):
    source = tmp_path / "published" / "net.pt"
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest() if sha256 is None else sha256
    return Weights(file="net.pt", url=source.as_uri(), sha256=digest)


def test_weights_are_fetched_once(tmp_path):
    weights = _published(tmp_path)
    folder = tmp_path / "cache" / "metrics"
    path = fetch_weights(weights, folder)
    assert path.read_bytes() == b"weights"
    (tmp_path / "published" / "net.pt").unlink()
    assert fetch_weights(weights, folder) == path
    assert [p.name for p in folder.iterdir()] == ["net.pt"]


def test_without_internet_the_message_says_what_to_put_where(tmp_path):
    nowhere = Weights(file="net.pt", url=(tmp_path / "gone.pt").as_uri())
    with pytest.raises(
        UserError, match=r"put the file there.*IPV2_METRIC_WEIGHTS"
    ) as e:
        fetch_weights(nowhere, tmp_path / "cache")
    assert str(tmp_path / "cache" / "net.pt") in str(e.value)
    assert nowhere.url in str(e.value)
    assert not (tmp_path / "cache" / "net.pt").exists()


def test_another_file_is_refused(tmp_path):
    weights = _published(tmp_path, sha256="0" * 64)
    with pytest.raises(UserError, match=r"not the published file.*Remove it"):
        fetch_weights(weights, tmp_path / "cache")


def test_the_folder_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("IPV2_METRIC_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path
    monkeypatch.delenv("IPV2_METRIC_WEIGHTS")
    assert weights_folder().parts[-3:] == (".cache", "ipv2", "metrics")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    clean_fid._inception.cache_clear()
    monkeypatch.setenv("IPV2_METRIC_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(
        clean_fid.importlib.util, "find_spec", lambda p: None if p == "cleanfid" else 1
    )
    for extractor in (clean_fid.inception, clean_fid.clip):
        with pytest.raises(UserError, match=r"\(cleanfid\).*requirements-metrics.txt"):
            extractor(np.zeros((1, 8, 8), np.uint8))


def test_clips_address_holds_its_digest():
    assert clean_fid.CLIP.url.split("/")[-2] == clean_fid.CLIP.sha256


def test_grey_images_become_three_channels_of_0_to_255():
    pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8)).astype(np.uint8)
    seen = []

    def network(batch):
        seen.append(batch)
        return batch.mean((2, 3)).half()

    found = clean_fid._features(network, lambda image: image[:4], images)
    assert seen[0].shape == (3, 3, 4, 8)
    assert found.dtype == np.float32 and found.shape == (3, 3)
    # Half precision.
    np.testing.assert_allclose(found[:, 0], images[:, :4].mean((1, 2)), rtol=1e-3)


def _save_stand_in(torch, folder) -> None:
    """A TorchScript file like Inception's: `layers` gives 2048 features."""

    class Layers(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)).repeat(1, 683)[:, :2048]

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = Layers()

        def forward(self, x):
            return self.layers(x)

    script = torch.jit.trace(Network(), torch.zeros(2, 3, 299, 299))
    script.save(str(folder / clean_fid.INCEPTION.file))


@pytest.mark.filterwarnings("ignore")  # PyTorch's and Pillow's, of clean-fid
def test_inceptions_weights_are_loaded_and_images_resized_by_clean_fid(
    tmp_path, monkeypatch
):
    torch = pytest.importorskip("torch")
    resizing = pytest.importorskip("cleanfid.resize")
    monkeypatch.setenv("IPV2_METRIC_WEIGHTS", str(tmp_path))
    _save_stand_in(torch, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64)).astype(np.uint8)
    found = clean_fid.inception(images)
    assert found.shape == (2, 2048)
    resize = resizing.make_resizer("PIL", False, "bicubic", (299, 299))
    for image, features in zip(images, found, strict=True):
        colour = np.repeat(image[..., None], 3, axis=-1)
        expected = (resize(colour).mean() - 128) / 128
        # float32 sums of 299^2 pixels.
        np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_broken_file_of_weights_is_said(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("cleanfid.resize")
    monkeypatch.setenv("IPV2_METRIC_WEIGHTS", str(tmp_path))
    (tmp_path / clean_fid.INCEPTION.file).write_bytes(b"no network")
    with pytest.raises(UserError, match="PyTorch cannot read it"):
        clean_fid.inception(np.zeros((1, 8, 8), np.uint8))


@pytest.mark.filterwarnings("ignore")
def test_the_distances_are_clean_fids():
    pytest.importorskip("torchvision")
    fid = pytest.importorskip("cleanfid.fid")
    distributions = importlib.import_module("ipv2.measures.distributions")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)), rng.normal(size=(60, 6)) + 0.5
    moments = [(a.mean(0), np.cov(a, rowvar=False)) for a in (x, y)]
    theirs = fid.frechet_distance(*moments[0], *moments[1])
    assert distributions.frechet_distance(x, y) == pytest.approx(theirs, rel=1e-6)
    # Their subsets are the whole of 60 images each.
    theirs = fid.kernel_distance(x, y, num_subsets=1)
    assert distributions.kernel_distance(x, y).value == pytest.approx(theirs)

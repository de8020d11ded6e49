import dataclasses
import hashlib
import logging as std_logging

import huggingface_hub
import pytest
from absl import logging
from huggingface_hub.errors import LocalEntryNotFoundError

from acq.weights.hub import HubFile, fetch, hash_weights
from common.errors import UserError

PLACE = HubFile(repo="timm/resnet18.tv_in1k", file="model.safetensors")


def test_the_file_and_revision_asked_for_are_fetched(tmp_path, monkeypatch):
    calls = []

    def download(*arguments, **options):
        calls.append((arguments, options))
        return str(tmp_path / "cached")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    place = HubFile(repo="a/b", file="c.safetensors", revision="1f2e")
    assert fetch(place) == tmp_path / "cached"
    assert calls == [(("a/b", "c.safetensors"), {"revision": "1f2e"})]


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no network\nand more"),
        ConnectionError("no network"),
        ValueError("no network"),
        RuntimeError("no network"),
    ],
)
def test_offline_says_which_file_to_get_and_where_to_give_it(monkeypatch, error):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError) as raised:
        fetch(PLACE)
    message = str(raised.value)
    assert (
        "model.safetensors of timm/resnet18.tv_in1k (revision main, SHA-256 not known "
        "here) is not in" in message
    )
    assert f"the hub's cache ({huggingface_hub.constants.HF_HUB_CACHE})" in message
    assert "fetched: no network. On" in message
    url = "https://huggingface.co/timm/resnet18.tv_in1k/resolve/main/model.safetensors"
    assert f"download {url}, copy it to this machine" in message
    assert message.endswith("--config.teacher.weights=FOLDER/model.safetensors")


def test_size_and_hash_of_the_file_are_told(monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    wanted = dataclasses.replace(PLACE, sha256="ab" * 32, size=46_800_000)
    with pytest.raises(UserError) as raised:
        fetch(wanted)
    facts = f"(revision main, about 47 MB, SHA-256 {'ab' * 32})"
    assert facts in str(raised.value)


def test_the_library_s_lines_of_all_tries_are_one(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda t, *args: lines.append(t % args))
    library = std_logging.getLogger("huggingface_hub")
    before = library.handlers, library.propagate

    def download(*_, **__):
        for attempt in range(5):
            child = std_logging.getLogger("huggingface_hub.utils._http")
            child.warning("'[Errno -2] x' thrown while requesting HEAD https://y")
            child.warning(f"Retrying in {2**attempt}s [Retry {attempt}/5].")
            child.warning("too many requests")
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError):
        fetch(PLACE)
    assert lines == [
        "the hub: no answer; trying again, for half a minute or more",
        "the hub: too many requests",
    ]
    assert (library.handlers, library.propagate) == before


def test_a_file_is_found_in_the_hub_s_cache_offline(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--timm--resnet18.tv_in1k/snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"cached")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = HubFile(repo=PLACE.repo, file=PLACE.file, revision=commit)
    assert fetch(place).read_bytes() == b"cached"


def test_a_pinned_hash_is_held_and_an_open_one_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(logging, "info", lambda text, *args: told.append(text % args))
    path = tmp_path / "w"
    path.write_bytes(b"weights")
    found = hashlib.sha256(b"weights").hexdigest()
    assert hash_weights(path, pinned=found.upper()) == found
    assert not told
    assert hash_weights(path, pinned="") == found
    assert found in told[0] and "--config.teacher.sha256" in told[0]
    with pytest.raises(UserError, match=f"its SHA-256 is {found}, but .* says 00"):
        hash_weights(path, pinned="0" * 64)
    with pytest.raises(UserError, match="nothing: cannot be read"):
        hash_weights(tmp_path / "nothing", pinned="")

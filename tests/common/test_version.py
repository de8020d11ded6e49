import re
import subprocess
import tomllib
from pathlib import Path

from common.version import PACKAGE, VERSION, commit_of, stated

ROOT = Path(__file__).parents[2]
NOBODY = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]


def _git(folder, *arguments):
    command = ["git", *NOBODY, "-C", str(folder), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.strip()


def _checkout(folder):
    _git(folder, "init")
    (folder / "file").write_text("1")
    _git(folder, "add", "file")
    _git(folder, "commit", "-m", "first")
    return _git(folder, "rev-parse", "HEAD")[:12]


def test_a_checkout_states_its_commit_and_that_it_was_changed(tmp_path):
    commit = _checkout(tmp_path)
    _git(tmp_path, "tag", "v9")  # a tag is no commit
    assert commit_of(tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path) == f"{commit}-dirty"


def test_what_lies_in_another_checkout_has_no_commit_of_it(tmp_path):
    _checkout(tmp_path)
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert commit_of(inside) is None


def test_without_git_or_a_commit_there_is_none(tmp_path, monkeypatch):
    _git(tmp_path, "init")
    assert commit_of(tmp_path) is None
    _checkout(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) is None


def test_an_installed_package_states_the_commit_that_it_was_built_from(tmp_path):
    folder = tmp_path / f"{PACKAGE.replace('-', '_')}-0.1.dist-info"
    folder.mkdir()
    header = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: "
    (folder / "METADATA").write_text(f"{header}0.1.dev7+g12ab34cd5.d20260101\n")
    assert commit_of(tmp_path) == "12ab34cd5"
    (folder / "METADATA").write_text(f"{header}0.1.0\n")
    assert commit_of(tmp_path) is None


def test_a_version_is_stated_with_its_commit():
    assert stated("1.0", None) == "1.0"
    assert stated("1.0", "12ab") == "1.0, commit 12ab"


def test_the_version_holds_no_commit_and_is_the_package_s():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == PACKAGE
    assert project["tool"]["setuptools_scm"]["fallback_version"] == VERSION

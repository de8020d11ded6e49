"""The docs name what is there: files, keys, recipes, benchmarks."""

import functools
import re
import runpy
import shlex
from pathlib import Path

import pytest

from common.nested import flatten

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT)
    for page in [
        *ROOT.glob("*.md"),
        *(
            p
            for d in ("acq", "docs", "ipv2", "tests", "weights")
            for p in ROOT.glob(f"{d}/**/*.md")
        ),
    ]
)
RECIPES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.glob("configs/*.py")
    if not path.name.startswith("base_")
)
LONGEST_README = 150  # lines


def _text(page):
    return (ROOT / page).read_text(encoding="utf-8")


@functools.cache
def _keys(recipe):
    """All keys of a recipe, those that stand for many too: `noise` and `noise.dose`."""
    config = runpy.run_path(str(ROOT / recipe))["get_config"]()
    parts = [key.split(".") for key, _ in flatten(config.to_dict())]
    return {".".join(p[: i + 1]) for p in parts for i in range(len(p))}


def wrong_links(text, folder):
    """Relative links, and sources of images, that lead to no file or heading."""
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    return [
        link
        for link in links
        if not re.match(r"[a-z]+:", link) and not _leads_somewhere(link, text, folder)
    ]


def _leads_somewhere(link, text, folder):
    path, _, heading = link.partition("#")
    if path:
        target = folder / path
        if not target.exists():
            return False
        text = target.read_text(encoding="utf-8") if heading else ""
    return not heading or heading in _headings(text)


def _headings(text):
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def wrong_keys(text):
    """Keys that its recipe lacks, or every recipe where a text gives none."""
    wrong, inline = [], text
    for command in _commands(text):
        inline = inline.replace(command, "")
        recipe = re.search(r"--config[ =](configs/[a-z0-9_]+\.py)", command)[1]
        keys = _keys(recipe) if recipe in RECIPES else ()
        wrong += [f"{recipe}: {k}" for k in _named_keys(command) if k not in keys]
    known = set().union(*map(_keys, RECIPES))
    return wrong + [key for key in _named_keys(inline) if key not in known]


def _commands(text):
    """Lines with a recipe, each with those that a backslash joins to it."""
    return re.findall(
        r"^.*--config[ =]configs/[a-z0-9_]+\.py(?:.*\\\n)*.*$", text, re.MULTILINE
    )


def _named_keys(text):
    return re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", text)


def wrong_names(text):
    """Recipes, modules and files of ours that are named and are not there."""
    files = re.findall(r"\bconfigs/[a-z0-9_]+\.py\b", text)
    files += re.findall(r"`((?:acq|common|docs|ipv2|tests)/[\w/.]*)`", text)
    files += [
        f"{name.replace('.', '/')}.py"
        for name in re.findall(r"\btests\.(?:benchmarks|figures)\.\w+", text)
    ]
    return [name for name in files if not (ROOT / name).exists()]


def test_the_readme_is_a_front_door():
    assert len(_text("README.md").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    assert not wrong_links(_text(page), (ROOT / page).parent)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_keys_are_keys_of_their_recipe(page):
    assert not wrong_keys(_text(page))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_is_named_is_there(page):
    assert not wrong_names(_text(page))


def test_commands_have_words_that_a_shell_reads():
    blocks = re.findall(r"```\n(.*?)```", _text("README.md"), re.DOTALL)
    commands = [c for block in blocks for c in _commands(block)]
    assert len(commands) >= 5
    for command in commands:
        assert "launch.py" in command and shlex.split(command)


def test_the_checks_see_what_is_wrong():
    assert len(PAGES) > 10 and len(RECIPES) > 5
    assert wrong_links("[a](no.md) [b](https://x.org) [c](#d)\n# D", ROOT) == ["no.md"]
    assert wrong_links("[a](README.md#no-such) ![b](no.png)", ROOT) == [
        "README.md#no-such",
        "no.png",
    ]
    command = (
        "launch.py --config configs/acq_digits.py:w4a4 \\\n  --config.noise.dose=1"
    )
    assert wrong_keys(command) == ["configs/acq_digits.py: noise.dose"]
    assert wrong_keys("`--config.noise.dose=1` and `--config.noise.dos`") == [
        "noise.dos"
    ]
    named = "configs/no.py, `tests.benchmarks.no`, `ipv2/no.py`, configs/quickstart.py"
    assert wrong_names(named) == [
        "configs/no.py",
        "ipv2/no.py",
        "tests/benchmarks/no.py",
    ]

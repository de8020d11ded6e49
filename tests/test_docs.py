"""Every snippet of the docs runs.

A block that begins with ```python is executed; one that begins with ```python no-run
is not. The blocks of a page run one after the other and share their names, in a folder
of their own that holds, small and made here:

    series/    a DICOM series of a chest       scan.nii.gz    the same
    breath/    the same chest, another breath  runs/x/        a run with an `export`
    runs/digits/export    a quantized network with its files for other software
"""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from acq.deploy.files import write_files
from acq.deploy.integer_ready import make_integer_ready
from acq.layers.float import FloatLayers
from ipv2.ct_io import read_volume, write_volume
from tests.acq.deploy.small_networks import (
    NORMALISATION,
    classifier_of,
    images,
    quantized_of,
)
from tests.acq.own_network import PlainNet
from tests.ipv2.ct_files import make_slice, save
from tests.ipv2.exports import export_network
from tests.oracles.thorax import thorax

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SIZE, MM, COUNT = 64, 6.25, 3


def snippets(text):
    """Code that is to be run, after empty lines, so that lines keep their numbers."""
    return [
        "\n" * text.count("\n", 0, match.start(1)) + match[1]
        for match in BLOCK.finditer(text)
    ]


def run_page(page):
    names = {"__name__": "__main__"}
    for code in snippets(page.read_text(encoding="utf-8")):
        exec(compile(code, str(page), "exec"), names)


PAGES = [
    page.relative_to(ROOT)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if snippets(page.read_text(encoding="utf-8"))
]


def _write_chest(folder, shift):
    noise = np.random.default_rng(0).normal(0, 10, (COUNT, SIZE, SIZE))
    for index, image in enumerate(thorax(SIZE, shift=shift).hu + noise):
        data = make_slice(
            np.clip(np.rint(image) + 1024, 0, 4095).astype(np.int32),
            position=(0.0, 0.0, 5.0 * index),
            spacing=(MM, MM),
            instance=index + 1,
        )
        save(data, folder / f"IM{index}")


def _export_quantized(folder):
    network = PlainNet(FloatLayers(), classes=5)
    teacher = classifier_of(network, "tests.acq.own_network:PlainNet")
    small = quantized_of(teacher, 4, others=None)
    small.save(folder)
    x = NORMALISATION.normalise(jnp.asarray(images(8)))
    write_files(make_integer_ready(small, [x]), teacher, folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the docs say is there, as the working directory."""
    monkeypatch.chdir(tmp_path)
    _write_chest(tmp_path / "series", 0.0)
    write_volume(read_volume("series"), "scan.nii.gz")
    _write_chest(tmp_path / "breath", 0.03)
    export_network(tmp_path / "runs/x")
    _export_quantized(tmp_path / "runs/digits/export")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_snippets_of_a_page_run(page, folder):
    run_page(ROOT / page)


def test_the_page_on_python_has_snippets():
    assert Path("docs/python.md") in PAGES


def test_a_snippet_that_fails_is_seen_with_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\n```python\na = 1\n```\nb\n```python\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as error:
        run_page(page)
    assert (error.traceback[-1].path, error.traceback[-1].lineno) == (page, 6)


def test_other_blocks_do_not_run():
    text = "```\n1 / 0\n```\n```python no-run\n1 / 0\n```\n```bash\nls\n```\n"
    assert snippets(text) == []

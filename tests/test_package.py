"""The package, installed where no checkout is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.version import VERSION

ROOT = Path(__file__).parents[1]
NEEDED = (
    *("acq", "common", "ipv2", "weights"),
    *("LICENSE", "README.md", "pyproject.toml", "setup.py"),
)


@pytest.mark.slow
def test_the_package_is_imported_from_another_folder(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in (*NEEDED, "requirements.txt"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-index", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*install, str(source)], check=True, timeout=300)
    said = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import acq, common.version, ipv2, ipv2.kernels.photon_noise\n"
            "from importlib.metadata import requires, version\n"
            "print(ipv2.__file__, version('ipv2-acq'), common.version.STATED)\n"
            "print(requires('ipv2-acq'))\n"
            "print(ipv2.load_denoiser())\n"
            "from importlib.resources import files\n"
            "print(sorted(p.name for p in files('common.report').iterdir()))",
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"},
        timeout=120,
    ).stdout
    # Built without git: the fallback, and no commit.
    assert said.startswith(f"{site}/ipv2/__init__.py {VERSION} {VERSION}\n")
    assert "jax>=" in said
    assert "TrainedDenoiser(network unet" in said
    for carried in (ROOT / "common" / "report").glob("*.[cj]s*"):
        assert f"'{carried.name}'" in said

"""Task denoise as a process: the command line, its end, and memory; simulate's too."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ipv2.ct_io import read_volume
from tests.compilation import compilation_environment
from tests.ipv2.ct_files import make_series
from tests.ipv2.exports import export_network
from tests.peak_memory import MEMORY

ROOT = Path(__file__).parents[2]
SMALL = {"name": "redcnn", "width": 1, "kernel_size": 3}
ENVIRONMENT = os.environ | compilation_environment()


def command(folder, source):
    return [
        *(sys.executable, str(ROOT / "launch.py")),
        *("--config", "configs/ipv2_redcnn.py", "--task", "denoise"),
        *("--workdir", str(folder / "run")),
        f"--config.denoise.input={folder / source}",
        f"--config.denoise.output={folder / 'out'}",
    ]


def launch(folder, *arguments):
    return subprocess.run(
        [*command(folder, "in"), *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_command_denoises_stops_cleanly_and_goes_on(tmp_path):
    apply, _ = export_network(tmp_path / "run", **SMALL)
    a = make_series(tmp_path / "in/a", 3, size=32)
    make_series(tmp_path / "in/b", 400, size=256)
    process = subprocess.Popen(
        command(tmp_path, "in"),
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    making = "out/.making/*/new/0/.writing.*"
    while not (tmp_path / "out/a.json").exists() or not any(tmp_path.glob(making)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)  # waiting for another process, not for a guess
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "the same command goes on" in errors and "Traceback" not in errors
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a", "a.json"]

    (tmp_path / "in/c.mha").write_bytes(b"nothing")
    for path in sorted((tmp_path / "in/b").iterdir())[:-4]:
        path.unlink()
    done = launch(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 volumes denoised with redcnn" in done.stdout
    assert "1 there before, 1 skipped" in done.stdout
    strict = launch(tmp_path, "--config.strict=True")
    assert strict.returncode == 3 and "Traceback" not in strict.stderr
    assert strict.stderr.splitlines()[-1].startswith("incomplete: 1 skipped")
    (tmp_path / "in/c.mha").unlink()
    assert launch(tmp_path, "--config.strict=True").returncode == 0
    assert "/s" in done.stderr  # the progress line
    assert len(list((tmp_path / "out/b").iterdir())) == 4
    wanted = np.clip(apply(a[..., None]), -1024, 3071)
    # Rounding to HU, and another order of sums in a process with optimizations.
    np.testing.assert_allclose(
        read_volume(tmp_path / "out/a").hu, wanted, rtol=0, atol=0.6
    )

    array = max(
        (p for p in (tmp_path / "run/export/variables").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    content = bytearray(array.read_bytes())
    content[len(content) // 2] ^= 1
    array.write_bytes(content)
    refused = launch(tmp_path)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert f"{array}: damaged" in refused.stderr


_DENOISE = f"""{MEMORY}
import sys
from ipv2.tasks.denoise import denoise
from tests.ipv2.exports import config_of
run, short, long, output = map(Path, sys.argv[1:])
denoise(config_of(short, output), run)
before = memory_mb("VmRSS")
forget_peak()
denoise(config_of(long, output), run)
print(memory_mb("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.long
def test_memory_does_not_grow_with_the_series(tmp_path):
    export_network(tmp_path / "run", **SMALL)
    make_series(tmp_path / "long", 200, size=256)
    shutil.copytree(
        tmp_path / "long",
        tmp_path / "short",
        # Names run against the positions: these are the first 40 slices.
        ignore=lambda _, names: [n for n in names if int(n[2:]) <= 160],
    )
    folders = (tmp_path / name for name in ("run", "short", "long", "out"))
    done = subprocess.run(
        [sys.executable, "-c", _DENOISE, *folders],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, count in (("short", 40), ("long", 200)):
        assert len(list((tmp_path / "out" / name).iterdir())) == count
    # After 40 slices, 200 may take no more: they are 52 MB as float32 and 26 as int16.
    # What is kept of each, its path and place, is about 0.2 MB; a batch is 2 slices of
    # 0.25 MB. Measured: 1.2 MB.
    grown = float(done.stdout.split()[-1])
    assert grown < 15


_SIMULATE = f"""{MEMORY}
import sys
from configs import simulate as recipe
from ipv2.tasks.simulate import simulate
short, long, output = map(Path, sys.argv[1:])
config = recipe.get_config()
config.dose, config.batch_size, config.noise.views = 0.5, 2, 4
config.data.input, config.output = str(short), str(output)
simulate(config, output)
before = memory_mb("VmRSS")
forget_peak()
config.data.input = str(long)
simulate(config, output)
print(memory_mb("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.long
def test_memory_of_simulate_does_not_grow_with_the_series(tmp_path):
    make_series(tmp_path / "long", 200, size=256, spacing=(0.8, 0.8))
    shutil.copytree(
        tmp_path / "long",
        tmp_path / "short",
        ignore=lambda _, names: [n for n in names if int(n[2:]) <= 160],
    )
    folders = (tmp_path / name for name in ("short", "long", "out"))
    done = subprocess.run(
        [sys.executable, "-c", _SIMULATE, *folders],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, count in (("short", 40), ("long", 200)):
        assert len(list((tmp_path / "out" / name).iterdir())) == count
    # As for denoise above. Measured: 6.7 MB.
    grown = float(done.stdout.split()[-1])
    assert grown < 15

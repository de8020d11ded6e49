"""The file runs with jax alone: in a process that cannot import this repository."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from acq.deploy.stablehlo import PLATFORMS, write_stablehlo
from tests.acq.deploy.small_networks import images, ready

PROGRAM = """
import sys
import numpy as np
from jax import export

try:
    import acq
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("acq is importable")
with open(sys.argv[1], "rb") as file:
    network = export.deserialize(bytearray(file.read()))
images = np.load(sys.argv[2])
for count in (1, len(images)):
    logits = np.asarray(network.call(images[:count]))
np.save(sys.argv[3], logits)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("stablehlo") / "model.stablehlo"
    write_stablehlo(ready("own", 4).network, path)
    return path


@pytest.mark.slow
def test_the_file_runs_without_this_repository(path, tmp_path):
    batch = images(7)
    np.save(tmp_path / "images.npy", batch)
    # -I leaves out the working directory and PYTHONPATH; it keeps the installed jax.
    files = (path, tmp_path / "images.npy", tmp_path / "logits.npy")
    command = [sys.executable, "-I", "-c", PROGRAM, *map(str, files)]
    subprocess.run(command, check=True, cwd=tmp_path)
    ours = np.asarray(ready("own", 4).network(batch))
    theirs = np.load(tmp_path / "logits.npy")
    # Sums in another order, since this process compiles without optimizations.
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * np.ptp(ours))


def test_the_file_is_the_network_for_every_count_of_images(path):
    network = jax.export.deserialize(bytearray(path.read_bytes()))
    small = ready("own", 4).network
    for count in (1, 3):
        batch = images(count)
        np.testing.assert_array_equal(network.call(batch), small(batch))
    assert set(network.platforms) == set(PLATFORMS)


@pytest.fixture
def located():
    """JAX's default, which tests turn off: operations know the lines that made them."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 10)
    yield lambda: getattr(jax.config, name)
    jax.config.update(name, before)


def test_the_file_holds_no_path_of_this_machine_and_is_the_same_each_time(
    located, tmp_path
):
    for name in ("a", "b"):
        write_stablehlo(ready("own", 4).network, tmp_path / name)
    assert located() == 10
    content = (tmp_path / "a").read_bytes()
    assert b".py" not in content
    assert (tmp_path / "b").read_bytes() == content

"""Slices a second of a denoiser's ONNX files and of JAX, side by side.

    python -m tests.benchmarks.denoise_onnx [--networks shipped cnn10 ...]
        [--integer RUN ...] [--size 512] [--slices 4] [--repeats 5] [--one-thread]
        [--smoke]

`shipped` is the network that comes with this software; the others have their recipes'
size and random weights, on which times do not depend. Both paths are those of task
denoise without its files: slices become stacks and tiles, one at a time. They take
turns, so that a busy machine slows both alike; each time is the best of the repeats.
`--one-thread` keeps the process on one core. `--integer` adds runs of
configs/acq_denoiser.py: for each a line of its float network and one of its file of
integers. Files run in onnxruntime, and in OpenVINO if it is installed. The last two
columns are the mean and the largest difference of a result from JAX in HU; the slices
are noise around water.
"""

import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# pytest, which imports this too, has its own settings.
if __name__ == "__main__" and "--one-thread" in sys.argv:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import numpy as np
import onnxruntime

from ipv2.deploy.onnx_file import save_onnx
from ipv2.inference.network import Network
from ipv2.inference.onnx_denoiser import load_onnx
from ipv2.inference.onnx_runtimes import RUNTIMES
from ipv2.inference.shipped import shipped_export
from ipv2.inference.trained import Trained, find_export, load_trained
from ipv2.training.denoiser_spec import DenoiserSpec
from tests.benchmarks.export_table import processor
from tests.benchmarks.shared.arguments import create_parser, parse

SHIPPED = "shipped"
NETWORKS = (SHIPPED, "cnn10", "redcnn", "dncnn", "unet", "nafnet", "restormer")


def network_of(name: str) -> Trained:
    """Returns the network that ships, or one with random weights."""
    if name == SHIPPED:
        return load_trained(shipped_export())
    spec = DenoiserSpec(name=name)
    denoiser = spec.create()
    manifest = {**spec.to_json(), "sha256": "0" * 64, "software_version": "none"}
    return Trained(
        spec=spec,
        denoiser=denoiser,
        variables=denoiser.init(jax.random.key(0)),
        manifest=manifest,
    )


def denoiser_of(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that denoises (slices, h, w) HU as task denoise does."""
    tiling = network.tiling(tile=-1, overlap=-1)
    applier = network.applier(batch_size=1, tiling=tiling)
    return lambda hu: np.stack(list(applier(iter(hu), hu.shape)))


def integers_of(run: Path) -> tuple[Trained, str, Path]:
    """Returns a run's float network, the bits of its file of integers, and the file."""
    config = json.loads((run / "config.json").read_text("utf-8"))
    trained = load_trained(find_export(config["teacher"]["export"]))
    quantizer = config["quantizer"]
    bits = f"W{quantizer['weight_bits']}A{quantizer['activation_bits']}"
    return trained, bits, run / "export" / "model.onnx"


def measure(
    trained: Trained, integers: Mapping[str, Path], hu: np.ndarray, repeats: int
) -> Iterator[tuple[str, str, float, float, np.ndarray]]:
    """Yields names of file and runtime, slices a second of JAX and of it, HU apart.

    Args:
      trained: the network; its own file comes first.
      integers: more files, by what to call them.
      hu: (slices, h, w).
      repeats: of which the best one counts.
    """
    runtimes = [name for name in RUNTIMES if importlib.util.find_spec(name)]
    with tempfile.TemporaryDirectory() as folder:
        floats = Path(folder) / "model.onnx"
        save_onnx(trained, floats)
        files = {
            (name, runtime): load_onnx(file, runtime)
            for name, file in {"float32": floats, **integers}.items()
            for runtime in runtimes
        }
    paths = [denoiser_of(network) for network in (trained, *files.values())]
    results = [denoise(hu) for denoise in paths]  # compiles
    best = [float("inf")] * len(paths)
    for _ in range(repeats):
        for index, denoise in enumerate(paths):
            start = time.perf_counter()
            denoise(hu)
            best[index] = min(best[index], time.perf_counter() - start)
    rates = [len(hu) / seconds for seconds in best]
    for names, rate, result in zip(files, rates[1:], results[1:], strict=True):
        yield *names, rates[0], rate, np.abs(result - results[0])


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the processor and the table."""
    parser = create_parser(__doc__)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--integer", nargs="*", type=Path, default=[], metavar="RUN")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one-thread", action="store_true")
    smoke = ["--networks", "dncnn", "--size", "64", "--slices", "2", "--repeats", "1"]
    args = parse(parser, command_line, smoke)
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 300, (args.slices, args.size, args.size)).astype(np.float32)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{processor()}; {cores} cores; onnxruntime {onnxruntime.__version__}, jax "
        f"{jax.__version__}; {args.size} x {args.size} pixels"
    )
    print(
        "network     file      runtime      JAX, slices/s  file, slices/s  x faster  "
        "HU apart, mean  at most"
    )
    measured = [(name, network_of(name), {}) for name in args.networks]
    for run in args.integer:
        trained, bits, file = integers_of(run)
        measured.append((trained.name, trained, {bits: file}))
    for name, trained, integers in measured:
        rows = measure(trained, integers, hu, args.repeats)
        for file, runtime, ours, theirs, apart in rows:
            print(
                f"{name:10}  {file:8}  {runtime:11}  {ours:13.2f}  {theirs:14.2f}  "
                f"{theirs / ours:8.2f}  {apart.mean():14.4f}  {apart.max():7.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

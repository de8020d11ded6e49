"""Integer denoisers as ONNX files: bytes, milliseconds, and what our network computes.

    python -m tests.benchmarks.denoiser_integers [--exports RUN ...] [--bits 8 4]
        [--size 512] [--repeats 5] [--cache DIR] [--smoke]

For each export it writes the file of floats and files of integers, with ranges of noisy
phantom slices; the kind of ranges does not change times. It counts the convolutions
that onnxruntime computes with integers (QLinearConv, after its extended optimizations),
and compares the file with our rounded network on a slice: mean and largest difference
in HU. onnxruntime has one thread; each time is the best of the repeats.
"""

import functools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

from acq.denoisers.bits import NetworkBits, convolutions_of
from acq.denoisers.ranges import ranges_of_images
from acq.denoisers.rounding import apply_rounded, roundings_of, settled
from common.image_network import ImageNetwork, Quantized
from ipv2.deploy.onnx_file import save_onnx
from ipv2.inference.trained import find_export, load_trained
from tests.benchmarks.denoiser_quantization import UNTRAINED, opened
from tests.benchmarks.export_table import processor
from tests.benchmarks.shared.arguments import create_parser, parse

SMOKE = ("--exports", UNTRAINED, "--bits", "4", "--size", "64", "--repeats", "1")


def write_integers(network: ImageNetwork, bits: int, path: Path):
    """Writes a file; returns our rounded network, and the number of convolutions."""
    convolutions = convolutions_of(network, 64)
    grids = NetworkBits(
        weight_bits=bits,
        activation_bits=bits,
        first_last_bits=8,
        names=tuple(found.name for found in convolutions),
    )
    images = jnp.asarray(network.images("noisy_phantom", 16, 48, 0))
    ranges = ranges_of_images(network, grids, [images])
    variables = settled({**network.variables, "ranges": ranges}, grids, convolutions)
    apply = jax.jit(lambda v, x: apply_rounded(network.module, v, x, grids)[0])
    ours = functools.partial(apply, variables)
    kept = {key: value for key, value in variables.items() if key != "ranges"}
    said = {
        "weight_bits": bits,
        "activation_bits": bits,
        "ranges_in_words": network.kinds["noisy_phantom"],
    }
    network.write(Quantized(kept, roundings_of(ranges, grids), said), path)
    return ours, len(convolutions)


def session_of(path: Path, optimized: Path) -> onnxruntime.InferenceSession:
    """Returns a session of one thread; writes its optimized graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimized)
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    )
    return onnxruntime.InferenceSession(path, options)


def best_ms(session, hu: np.ndarray, repeats: int) -> tuple[float, np.ndarray]:
    """Returns the best time and the result."""
    (result,) = session.run(None, {"hu": hu})  # not measured
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        session.run(None, {"hu": hu})
        times.append(time.perf_counter() - started)
    return 1e3 * min(times), result


def line_of(path: Path, folder: Path, hu: np.ndarray, repeats: int):
    """Returns bytes, milliseconds, convolutions of integers, and the result."""
    session = session_of(path, folder / "optimized.onnx")
    ms, result = best_ms(session, hu, repeats)
    nodes = onnx.load(folder / "optimized.onnx").graph.node
    integers = sum(node.op_type == "QLinearConv" for node in nodes)
    return path.stat().st_size, ms, integers, result


def measure(export: str, network: ImageNetwork, args, folder: Path) -> None:
    """Prints the lines of a network."""
    stack = network.images("noisy_phantom", 1, args.size, 1)
    hu = (1000 * stack.transpose(0, 3, 1, 2)).astype(np.float32)
    if export != UNTRAINED:
        path = folder / "float.onnx"
        save_onnx(load_trained(find_export(export)), path)
        size, ms, _, _ = line_of(path, folder, hu, args.repeats)
        print(f"{export} float: {size:,} bytes, {ms:.1f} ms", flush=True)
    for bits in args.bits:
        path = folder / "integer.onnx"
        ours, count = write_integers(network, bits, path)
        size, ms, integers, found = line_of(path, folder, hu, args.repeats)
        apart = np.abs(
            found[:, 0] - 1000 * np.asarray(ours(jnp.asarray(stack)))[..., 0]
        )
        print(
            f"{export} W{bits}A{bits}: {size:,} bytes, {ms:.1f} ms, {integers} of "
            f"{count} convolutions of integers; from ours {apart.mean():.5f} HU in the "
            f"mean, {apart.max():.3f} at most, {np.mean(apart > 0.1):.4%} above 0.1",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the lines of each export."""
    parser = create_parser(__doc__)
    parser.add_argument("--exports", nargs="*", default=["weights/unet"])
    parser.add_argument("--bits", nargs="*", type=int, default=[8, 4])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cache", default="")
    args = parse(parser, argv, SMOKE)
    print(processor())
    with tempfile.TemporaryDirectory() as name:
        for export in args.exports:
            network = opened(export, args.cache or name, 1)
            measure(export, network, args, Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())

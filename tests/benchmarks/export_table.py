"""Sizes and latencies of a network's files: ONNX of floats and integers, packed, ours.

    python -m tests.benchmarks.export_table [--networks NAME ...] [--bits 8 4]
        [--repeats 200] [--smoke]

The networks have random weights, and statistics of batch normalisation that fit them:
sizes and times do not depend on the values. Activations have as many bits as weights,
all other tensors 8. Each latency is the best of the repeats for one image, on one
thread of one core, in processor time, which excludes other programs. "ours" is the
network of integers in JAX, and the size of its exported folder. The first line has the
processor's features that matter to integer kernels. Below each table: how many
convolutions onnxruntime computes with integers, on how many of 100 random images its
class is that of ours, and the times of OpenVINO if it is installed.
"""

import importlib.util
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # pytest, which imports this too, has its own settings
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

from acq.classifier import Classifier
from acq.deploy.files import FLOAT, INTEGER, PACKED, STABLEHLO, write_files
from acq.deploy.integer_ready import make_integer_ready
from acq.export import QuantizedNetwork, quantize_student
from acq.layers.float import FloatLayers
from acq.layers.observed import ranges_from_images
from acq.models import create_network, find_network
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from acq.quantization.student_layers import range_layers
from acq.teacher.in_memory import given_classifier
from common.onnx.openvino import import_openvino
from common.text_table import format_table
from tests.benchmarks.shared.arguments import create_parser, parse

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UPDATES = 10  # of the statistics, each a tenth of the way
CHECKED = 100


def processor() -> str:
    """Returns the processor's name and its features for integer kernels."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    about = {key.strip(): value.strip() for key, value in pairs}
    flags = about.get("flags", about.get("Features", "")).split()
    found = [name for name in FEATURES if name in flags]
    name = about.get("model name", platform.machine())
    return f"{name}: {', '.join(found) or 'none of ' + ', '.join(FEATURES)}"


def images_of(size: int, count: int) -> np.ndarray:
    """Returns images in [0, 1] with coarse and fine structure."""
    rng = np.random.default_rng(0)
    coarse = np.kron(
        rng.random((count, 4, 4, 3)), np.ones((1, size // 4, size // 4, 1))
    )
    fine = rng.random((count, size, size, 3))
    return (0.7 * coarse + 0.3 * fine).astype(np.float32)


def random_classifier(name: str) -> Classifier:
    """Returns a network with random weights and statistics that fit them."""
    about = find_network(name)
    assert about is not None, name
    network = create_network(name, FloatLayers(), about.classes)
    x = jnp.asarray((images_of(about.image_size, 8) - MEAN) / STD, jnp.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)

    @jax.jit
    def update(variables):
        changed = network.apply(variables, x, train=True, mutable=["batch_stats"])[1]
        return {**variables, **changed}

    for _ in range(UPDATES):
        variables = update(variables)
    return given_classifier(
        name, variables, mean=MEAN, std=STD, image_size=about.image_size
    )


def quantized(teacher: Classifier, bits: int) -> QuantizedNetwork:
    """Returns the network rounded to integers."""
    quantizer = QuantizerSettings(weight_bits=bits, activation_bits=bits, other_bits=8)
    x = jnp.asarray(images_of(teacher.record.image_size, 8))
    ranges = ranges_from_images(
        teacher.network,
        range_layers(quantizer, teacher),
        teacher.variables,
        [teacher.record.normalisation.normalise(x)],
    )
    settings = QuantizationSettings(quantizer=quantizer)
    return quantize_student(settings, teacher, {**teacher.variables, "ranges": ranges})


def session(path: Path, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    """Returns a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )


def openvino_run(path: Path, image: np.ndarray) -> Callable[[], object]:
    """Returns what runs a file on an image in OpenVINO, on one thread."""
    core = import_openvino().Core()
    model = core.read_model(path)
    model.reshape(list(image.shape))
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: image})


def best_ms(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Returns the best processor time of each run, in ms; they take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if repeat:  # The first one compiles.
                best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def folder_bytes(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def print_table(name: str, bits: int, repeats: int) -> None:
    """Writes the files of a network, times them, and prints their table."""
    teacher = random_classifier(name)
    ready = make_integer_ready(quantized(teacher, bits))
    small, batch = ready.network, images_of(teacher.record.image_size, CHECKED)
    image = batch[:1]
    nchw = np.ascontiguousarray(np.moveaxis(batch, -1, 1))
    with tempfile.TemporaryDirectory(prefix="export.") as name_of_folder:
        folder = Path(name_of_folder)
        write_files(ready, teacher, folder)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        small.save(folder / "ours")
        sizes["ours"] = folder_bytes(folder / "ours" / "variables")
        floats = session(folder / FLOAT)
        integers = session(folder / INTEGER, folder / "optimised.onnx")
        nodes = onnx.load(folder / "optimised.onnx").graph.node
        exported = jax.export.deserialize(bytearray((folder / STABLEHLO).read_bytes()))
        openvino = {}
        if importlib.util.find_spec("openvino"):
            openvino = {
                f"OpenVINO {file}": openvino_run(folder / file, nchw[:1])
                for file in (FLOAT, INTEGER)
            }
    stablehlo = jax.jit(exported.call)
    ms = best_ms(
        {
            FLOAT: lambda: floats.run(None, {"images": nchw[:1]}),
            INTEGER: lambda: integers.run(None, {"images": nchw[:1]}),
            STABLEHLO: lambda: jax.block_until_ready(stablehlo(image)),
            "ours": lambda: jax.block_until_ready(small(image)),
            **openvino,
        },
        repeats,
    )
    rows = [
        (
            file,
            sizes[file],
            sizes[FLOAT] / sizes[file],
            ms.get(file),
            ms[FLOAT] / ms[file] if file in ms else None,
        )
        for file in (FLOAT, INTEGER, PACKED, STABLEHLO, "ours")
    ]
    title = f"{name}, W{bits}A{bits}, {teacher.record.image_size} pixels"
    columns = ["file", "bytes", "x smaller", "ms", "x faster"]
    print("\n" + format_table(columns, rows, digits=(0, 0, 2, 3, 2), title=title))
    theirs = np.argmax(np.asarray(integers.run(None, {"images": nchw})[0]), 1)
    same = int(np.sum(theirs == np.asarray(small(batch)).argmax(1)))
    counts = Counter(node.op_type for node in nodes)
    floating = counts["Conv"] + counts["FusedConv"]
    print(
        f"{counts['QLinearConv']} convolutions of integers, {floating} of floats; "
        f"{same} of {CHECKED} classes as ours"
    )
    if openvino:
        slow, fast = (ms[run] for run in openvino)
        print(f"OpenVINO: {slow:.3f} and {fast:.3f} ms, {slow / fast:.2f} x faster")


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints a table for each network and its bits."""
    parser = create_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet18"])
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4])
    parser.add_argument("--repeats", type=int, default=200)
    smoke = ["--networks", "resnet8", "--bits", "4", "--repeats", "1"]
    options = parse(parser, command_line, smoke)
    print(processor())
    print(f"onnxruntime {onnxruntime.__version__}, jax {jax.__version__}, one thread")
    for name in options.networks:
        for bits in options.bits:
            print_table(name, bits, options.repeats)


if __name__ == "__main__":
    main()

"""Compares a trained network's files with our network of integers, on labelled images.

    python -m tests.benchmarks.export_trained --recipe r20_cifar10 --weights FILE
        --images NPZ [--bits 8 4] [--smoke]
    python -m tests.benchmarks.export_trained --recipe efficientnet_lite0 --weights FILE
        --images FOLDER --classes TEXT --set eval.resize=1.0 [--bits 8]

The network is rounded, without a step of training. All its tensors are integers, with
ranges from BatchNorm's parameters (`other_bits=8`). Columns: images that are right and
images with the float network's class; for `model.onnx` in onnxruntime, with and without
its optimizations, and in OpenVINO if it is installed, also images with the class of
ours, and the largest difference of a logit, in steps of the activations' bits over the
logits' range.
"""

import argparse
import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from acq.accuracy import logits_of, predict
from acq.classifier import Classifier
from acq.datasets.eval_data import EvalData
from acq.datasets.opening import open_eval_data
from acq.deploy.integer_ready import make_integer_ready
from acq.deploy.network_graph import integer_graph
from acq.deploy.onnx_file import write_onnx
from acq.export import QuantizedNetwork, quantize_student
from acq.quantization.student_layers import statistics_ranges
from acq.tasks.check import check
from acq.tasks.settings import TaskSettings, task_settings
from acq.teacher.opening import open_teacher
from common.onnx.openvino import PACKAGE as OPENVINO
from common.onnx.openvino import compile_onnx
from common.text_table import format_table
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.shared.stand_ins import write_images, write_weights

_BATCH = 20  # images at once in a runtime


def settings_of(options: argparse.Namespace, bits: int) -> TaskSettings:
    """Returns the settings of the recipe with these bits, and 8 for other tensors."""
    recipe = importlib.import_module(f"configs.acq_{options.recipe}")
    config = recipe.get_config("integer_ready")
    config.quantizer.weight_bits = config.quantizer.activation_bits = bits
    config.teacher.weights, config.eval.path = options.weights, options.images
    config.eval.classes, config.eval.batch_size = options.classes, 50
    config.update_from_flattened_dict(
        {key: type_of(config, key)(value) for key, value in map(split, options.set)}
    )
    check(config)
    return task_settings(config)


def split(text: str) -> tuple[str, str]:
    """Returns key and value of key=value."""
    key, value = text.split("=", 1)
    return key, value


def type_of(config, key: str) -> type:
    """Returns the type of a key such as "eval.resize"."""
    section, name = key.split(".")
    return type(config[section][name])


def rounded(settings: TaskSettings, teacher: Classifier) -> QuantizedNetwork:
    """Returns the rounded network as integer kernels compute it."""
    ranges = statistics_ranges(settings.quantization, teacher)
    variables = {**teacher.variables, "ranges": ranges}
    small = quantize_student(settings.quantization, teacher, variables)
    return make_integer_ready(small).network


Run = Callable[[np.ndarray], np.ndarray]
"""Returns the logits of images, float32 (n, channels, height, width) in [0, 1]."""


def in_onnxruntime(path: Path, *, optimised: bool) -> Run:
    """Returns a file, with onnxruntime's optimizations or without."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: np.asarray(session.run(None, {"images": x})[0])


def runs_of(path: Path) -> dict[str, Run]:
    """Returns a file in each runtime that is installed."""
    found = {
        path.name: in_onnxruntime(path, optimised=True),
        f"{path.name}, not optimised": in_onnxruntime(path, optimised=False),
    }
    if importlib.util.find_spec(OPENVINO):
        network = compile_onnx(path.read_bytes())
        found[f"{path.name}, OpenVINO"] = lambda x: network(x)[0].copy()
    return found


def logits_of_all(run: Run, data: EvalData) -> np.ndarray:
    """Returns the logits of all images."""
    logits = []
    for start in range(0, len(data), _BATCH):
        images = data.images[np.arange(start, min(start + _BATCH, len(data)))]
        x = np.moveaxis(images.astype(np.float32) / 255, -1, 1)
        logits.append(run(np.ascontiguousarray(x)))
    return np.concatenate(logits)


def print_table(options: argparse.Namespace, bits: int) -> None:
    """Rounds the network to these bits and prints its table."""
    settings = settings_of(options, bits)
    teacher = open_teacher(settings.teacher, Path(), seed=0)
    data = open_eval_data(settings.evaluation, teacher.record)
    assert data is not None
    small = rounded(settings, teacher)

    def logits(network, variables):
        return predict(
            logits_of(network),
            variables,
            data.images,
            batch_size=settings.evaluation.batch_size,
            normalisation=teacher.record.normalisation,
        )

    found = {
        "float": logits(teacher.network, teacher.variables),
        "ours": logits(small.network, small.variables),
    }
    with tempfile.TemporaryDirectory(prefix="export.") as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(integer_graph(small), small.record, path)
        found |= {name: logits_of_all(run, data) for name, run in runs_of(path).items()}
    ours, expected = found["ours"], found["float"].argmax(1)
    step = np.ptp(ours) / (2**bits - 1)
    rows = [
        (
            name,
            int(np.sum(x.argmax(1) == data.labels)),
            int(np.sum(x.argmax(1) == expected)),
            int(np.sum(x.argmax(1) == ours.argmax(1))),
            float(np.abs(x - ours).max() / step) if "onnx" in name else None,
        )
        for name, x in found.items()
    ]
    title = f"{teacher.record.name}, W{bits}A{bits}, {len(data):,} images"
    columns = ["network", "right", "as float", "as ours", "steps apart"]
    print(format_table(columns, rows, digits=(0, 0, 0, 0, 2), title=title))


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints a table for each number of bits."""
    parser = create_parser(__doc__)
    parser.add_argument("--recipe", required=True, help="a name of configs/acq_*.py")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--classes", default="", help="as config.eval.classes")
    parser.add_argument("--bits", nargs="+", type=int, default=[8])
    parser.add_argument("--set", nargs="*", default=[], help="more keys: key=value")
    with tempfile.TemporaryDirectory() as folder:
        options = parse(parser, command_line, lambda: smoke(Path(folder)))
        for bits in options.bits:
            print_table(options, bits)


def smoke(folder: Path) -> list[str]:
    """Writes weights and images; returns the arguments of a run on them."""
    write_weights(folder / "weights.npz")
    write_images(folder / "images.npz", 40)
    return [
        *("--recipe=r20_cifar10", f"--weights={folder / 'weights.npz'}"),
        *(f"--images={folder / 'images.npz'}", "--bits=4", "--set=teacher.depth=8"),
    ]


if __name__ == "__main__":
    main()

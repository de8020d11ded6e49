"""Compares bits chosen for a budget with equal bits for all layers of the same size.

    python -m tests.benchmarks.acq_budget --weights FILE --images NPZ \
        [--network resnet20] [--bits 3 4] [--seeds 0 1 2] [--ranked 1000] [--smoke]

The network is rounded and not trained. The first table ranks the layers: Spearman's
correlation of data-free measures with what rounding one layer alone to 2 or 3 bits does
on the first `--ranked` images (0: no such table). The second table has the accuracy on
all images, of rounded weights alone, and with activations of as many bits, with ranges
from BatchNorm. The seeds are those of the measure's draws.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from scipy.stats import spearmanr

import acq
from acq.accuracy import (
    classes_of,
    logits_of,
    measure_accuracy,
    measure_fidelity,
    predict,
)
from acq.classifier import Classifier
from acq.layers.float import FloatLayers
from acq.layers.quantized import QuantLayers
from acq.quantization.bit_budget import (
    choose_bits_within,
    packed_bytes,
    with_weight_bits,
)
from acq.quantization.sensitivity import make_passes, measure_sensitivity, rounded_alone
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from acq.quantization.student_layers import (
    bits_by_layer,
    fixed_weight_bits,
    quant_layers,
    statistics_ranges,
)
from common.text_table import format_table
from common.typing import PyTree
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.shared.stand_ins import write_images, write_weights

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RANKED_BITS = (2, 3)


class Images:
    """Images, their labels, and how a network does on them."""

    def __init__(self, path: Path, teacher: Classifier, count: int | None = None):
        """Reads the first `count` images of an .npz; None: all."""
        with np.load(path) as file:
            self.images, self.labels = file["images"][:count], file["labels"][:count]
        self.teacher = teacher

    def logits(self, network, variables) -> np.ndarray:
        """Returns the logits of a network made of the teacher."""
        return predict(
            logits_of(network),
            variables,
            self.images,
            batch_size=250,
            normalisation=self.teacher.record.normalisation,
        )

    def top1(self, logits: np.ndarray) -> float:
        """Returns the accuracy in percent."""
        return measure_accuracy(logits, self.labels).top1


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ranked", type=int, default=1000)
    with tempfile.TemporaryDirectory() as folder:
        options = parse(parser, command_line, lambda: smoke(Path(folder)))
        teacher = acq.load_teacher(
            acq.TeacherSettings(
                name=options.network, weights=str(options.weights), mean=_MEAN, std=_STD
            )
        )
        if options.ranked:
            print(ranks(teacher, options) + "\n", flush=True)
        print(accuracies(teacher, options))


def smoke(folder: Path) -> list[str]:
    """Writes weights and images; returns the arguments of a tiny run with them."""
    weights, images = folder / "weights.npz", folder / "images.npz"
    write_weights(weights)
    write_images(images, 20)
    return [
        *(f"--weights={weights}", f"--images={images}", "--network=resnet8"),
        *("--bits", "3", "--seeds", "0", "--ranked=20"),
    ]


def ranks(teacher: Classifier, options: argparse.Namespace) -> str:
    """Returns the table of correlations over layers."""
    names = list(fixed_weight_bits(QuantizerSettings(), teacher))
    measures: dict[str, Callable[[], dict[str, list[float]]]] = {
        "BatchNorm statistics": lambda: measure_sensitivity(
            teacher, names, _RANKED_BITS, symmetric=False, seed=options.seeds[0]
        ),
        "noise as images": lambda: on_noise(teacher, names, options.seeds[0]),
        "error of the weights": lambda: weight_errors(teacher, names),
    }
    divergence, lost = on_images(teacher, names, options)
    rows = []
    for name, measure in measures.items():
        found = measure()
        for place, bits in enumerate(_RANKED_BITS):
            mine = [found[layer][place] for layer in names]
            true = ([of[layer][place] for layer in names] for of in (divergence, lost))
            rows.append((name, bits, *(_rank_correlation(mine, t) for t in true)))
    return format_table(
        ["measure", "bits", "with KL\non images", "with accuracy\nlost"],
        rows,
        title=f"{len(names)} layers, {options.ranked} images",
    )


def on_images(
    teacher: Classifier, names: list[str], options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns KL and accuracy lost by layer and bits, of images."""
    data = Images(options.images, teacher, options.ranked)
    before = data.logits(teacher.network, teacher.variables)
    divergence, lost = ({name: [] for name in names} for _ in range(2))
    for name, _, variables in _alone(teacher, names):
        after = data.logits(teacher.network, variables)
        divergence[name].append(measure_fidelity(after, before).kl)
        right = [np.sum(classes_of(x) == data.labels) for x in (before, after)]
        lost[name].append(float(right[0] - right[1]))
    return divergence, lost


def on_noise(teacher: Classifier, names: list[str], seed: int) -> dict:
    """Returns the KL of the logits of 128 standard normal images."""
    images = jax.random.normal(jax.random.key(seed), teacher.record.image_shape(128))
    apply, divergence_of = make_passes(teacher.with_layers(FloatLayers()))
    logits = apply(teacher.variables, images)
    found = {name: [] for name in names}
    for name, _, variables in _alone(teacher, names):
        found[name].append(float(divergence_of(variables, images, logits)))
    return found


def weight_errors(teacher: Classifier, names: list[str]) -> dict:
    """Returns |w - rounded w|^2 / |w|^2, a mean over output channels."""
    found = {name: [] for name in names}
    for name, _, variables in _alone(teacher, names):
        w, rounded = (
            np.asarray(_kernel(v, name)) for v in (teacher.variables, variables)
        )
        axes = tuple(range(w.ndim - 1))
        share = np.sum((w - rounded) ** 2, axes) / np.sum(w**2, axes)
        found[name].append(float(np.mean(share)))
    return found


def _alone(teacher: Classifier, names: list[str]) -> Iterable:
    return rounded_alone(teacher, names, _RANKED_BITS, symmetric=False)


def _rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    return float(spearmanr(a, b).statistic)


def accuracies(teacher: Classifier, options: argparse.Namespace) -> str:
    """Returns the table of networks rounded to equal and to chosen bits."""
    data = Images(options.images, teacher)
    top1 = data.top1(data.logits(teacher.network, teacher.variables))
    rows: list[tuple] = [("float", None, None, top1, None)]
    for bits in options.bits:
        equal = QuantizationSettings(
            quantizer=QuantizerSettings(weight_bits=bits, activation_bits=bits)
        )
        size = _size(teacher, dict.fromkeys(_shapes(teacher), bits))
        rows.append((f"{bits} bits everywhere", None, size, *_top1(data, equal)))
        for seed in options.seeds:
            chosen = _chosen(teacher, size, bits, seed)
            own = bits_by_layer(chosen.quantizer, teacher)["weights"]
            rows.append(("chosen", seed, _size(teacher, own), *_top1(data, chosen)))
            print(f"{rows[-1]}: {own}", flush=True)
    return format_table(
        [
            "network",
            "seed",
            "weights\nMB",
            "weights\ntop-1 %",
            "and activations\ntop-1 %",
        ],
        rows,
        digits=(0, 0, 6, 2, 2),
        title=f"{len(data.images):,} images",
    )


def _chosen(teacher, size: float, bits: int, seed: int) -> QuantizationSettings:
    settings = QuantizationSettings(
        seed=seed, quantizer=QuantizerSettings(budget_mb=size, activation_bits=bits)
    )
    return with_weight_bits(settings, choose_bits_within(settings, teacher).bits)


def _shapes(teacher: Classifier) -> dict[str, tuple[int, ...]]:
    names = fixed_weight_bits(QuantizerSettings(), teacher)
    return {name: np.shape(_kernel(teacher.variables, name)) for name in names}


def _kernel(variables: PyTree, layer: str) -> Any:
    return flatten_dict(variables["params"], sep="/")[f"{layer}/kernel"]


def _size(teacher: Classifier, bits: dict) -> float:
    shapes = _shapes(teacher)
    return sum(packed_bytes(shapes[name], n) for name, n in bits.items()) / 1e6


def _top1(data: Images, settings: QuantizationSettings) -> tuple[float, float]:
    """Returns top-1 with rounded weights, and with rounded activations too."""
    teacher = data.teacher
    whole = quant_layers(settings.quantizer, teacher)
    alone = _WeightLayers(
        kernels=whole.kernels, activations=whole.activations, bits=whole.bits
    )
    ranges = {"ranges": statistics_ranges(settings, teacher)}
    weights = data.logits(teacher.with_layers(alone), teacher.variables)
    both = data.logits(teacher.with_layers(whole), {**teacher.variables, **ranges})
    return data.top1(weights), data.top1(both)


class _WeightLayers(QuantLayers):
    """Rounded kernels and float activations."""

    activation = FloatLayers.activation


if __name__ == "__main__":
    main()

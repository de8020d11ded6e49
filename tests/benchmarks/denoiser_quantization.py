"""Integer denoisers without data: float, rounding, a GDFQ-like student, ACQ.

    python -m tests.benchmarks.denoiser_quantization [--exports RUN ...] [--bits 8 6 4]
        [--seeds 1] [--generator-steps 150] [--student-steps 100] [--slices 2]
        [--first-bound 10] [--cache DIR] [--smoke]

For each export and number of bits (of weights and of activations; the first and the
last convolution have 8) it judges, on held-out slices of the sample CT and of the
phantom:

    float          the network itself
    noise ...      rounding, with ranges of these images; nothing learns
    statistics     rounding, with ranges from BatchNorm parameters alone
    generated      rounding, with ranges of ACQ's generator
    real           rounding, with ranges of real CT: the oracle that privacy forbids
    gdfq           a student of a generator with BatchNorm statistics alone
    acq            a student of ACQ's generator

A network without batch normalisation has the rows of images alone. Columns: PSNR in
the full range against the truth and against the float network, largest difference of a
tissue's mean HU from the float network's with its tissue, noise of soft tissue, and the
lungs' outline. Seeds change the generator's and the student's draws.
"""

import functools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from acq.denoisers.bits import Convolution, NetworkBits, convolutions_of
from acq.denoisers.bounds import LAST_BOUND
from acq.denoisers.phases import generated_images, generator_phase, student_phase
from acq.denoisers.ranges import noise_images, ranges_of_images
from acq.denoisers.rounding import apply_rounded, settled
from acq.denoisers.settings import (
    ACQ,
    STATISTICS,
    ImageGeneratorSettings,
    ImageQuantizationSettings,
    ImageStudentSettings,
)
from acq.quantization.phases import Phase
from common.devices import replicate, shard_batch
from common.image_network import Apply, ImageNetwork
from common.typing import PyTree
from ipv2.tasks.image_network import open_denoiser, untrained_denoiser
from tests.benchmarks.shared.arguments import create_parser, parse

UNTRAINED = "untrained"
_TISSUES = ("air", "lung", "fat", "soft", "bone")
# Adam's rate by bits: the finer the grid, the less there is to mend.
_RATES = {8: 2e-5, 6: 1e-4, 4: 5e-4}
Row = Mapping[str, float]


def rows_of(
    network: ImageNetwork, bits: int, generators: Mapping[str, PyTree], options
) -> dict[str, dict[str, Row]]:
    """Returns {data set: {row: numbers}} for one number of bits and one seed."""
    convolutions = convolutions_of(network, options["image_size"])
    grids = NetworkBits(
        weight_bits=bits,
        activation_bits=bits,
        first_last_bits=8,
        names=tuple(convolution.name for convolution in convolutions),
    )
    apply = jax.jit(
        lambda variables, x: apply_rounded(network.module, variables, x, grids)[0]
    )
    functions: dict[str, Apply] = {
        "float": jax.jit(functools.partial(network.module.apply, network.variables))
    }
    for name, trained in _trained(network, grids, generators, bits, options):
        variables = settled({**network.variables, **trained}, grids, convolutions)
        functions[name] = functools.partial(apply, variables)
    return network.judge(functions)


def _trained(
    network: ImageNetwork,
    grids: NetworkBits,
    generators: Mapping[str, PyTree],
    bits: int,
    options,
) -> Iterator[tuple[str, PyTree]]:
    """Yields what each row has in place of the float network's variables."""
    side, count, seed = options["image_size"], options["images"], options["seed"]
    noise = noise_images(network, count, side, seed)
    yield "noise", {"ranges": ranges_of_images(network, grids, [noise])}
    if network.has_statistics:
        drawn = ranges_of_images(network, grids, [noise], gaussian_seed=seed)
        yield "statistics", {"ranges": drawn}
    for kind in network.kinds:
        images = jax.numpy.asarray(network.images(kind, count, side, seed))
        yield kind, {"ranges": ranges_of_images(network, grids, [images])}
    for name, params in generators.items():
        settings = settings_of(name, bits, options)
        images = generated_images(settings, network, params, count)
        ranges = ranges_of_images(network, grids, [images], bound=LAST_BOUND)
        if name == "acq":
            yield "generated", {"ranges": ranges}
        phase = student_phase(settings, network, grids, params, ranges)
        yield name, run(phase).student.params


def settings_of(name: str, bits: int, options) -> ImageQuantizationSettings:
    """Returns the settings of a row's generator and student."""
    return ImageQuantizationSettings(
        seed=options["seed"],
        image_size=options["image_size"],
        generator=ImageGeneratorSettings(
            first_bound=options["first_bound"],
            loss=ACQ if name == "acq" else STATISTICS,
        ),
        student=ImageStudentSettings(learning_rate=_RATES.get(bits, 2e-4)),
        generator_steps=options["generator_steps"],
        student_steps=options["student_steps"],
        batch_size=options["batch_size"],
    )


def run(phase: Phase) -> PyTree:
    """Returns the state after a phase; no checkpoints."""
    state, draws = replicate(phase.state), iter(phase.draws)
    for _ in range(phase.plan.total):
        state, _ = phase.p_step(state, shard_batch(next(draws)))
    return jax.device_get(state)


def generators_of(network: ImageNetwork, options) -> dict[str, PyTree]:
    """Returns the generators' parameters; none without batch normalisation."""
    if not network.has_statistics:
        return {}
    last = last_of(convolutions_of(network, options["image_size"]))
    return {
        name: run(
            generator_phase(settings_of(name, 8, options), network, last)
        ).generator.params
        for name in ("gdfq", "acq")
    }


def last_of(convolutions: Sequence[Convolution]) -> str:
    """Returns the path of the last convolution."""
    return convolutions[-1].name


def line_of(row: Row, of_float: Row) -> str:
    """Returns the numbers of a row."""
    moved = {
        tissue: row[f"bias_{tissue}_hu"] - of_float[f"bias_{tissue}_hu"]
        for tissue in _TISSUES
        if row[f"bias_{tissue}_hu"] is not None
    }
    most = max(moved, key=lambda tissue: abs(moved[tissue])) if moved else "none"
    return (
        f"{row['psnr_full_db']:8.3f} {row.get('psnr_to_float_db', np.inf):8.2f} "
        f"{moved.get(most, 0):+8.2f} {most:5} {row['noise_soft_hu']:8.2f} "
        f"{row['contour_mm']:7.3f}"
    )


_HEAD = (
    f"{'bits':>4} {'seed':>4} {'data set':10} {'row':14} {'truth dB':>8} "
    f"{'float dB':>8} {'bias HU':>8} {'of':5} {'noise HU':>8} {'lung mm':>7}"
)


def measure(network: ImageNetwork, name: str, bits, seeds, options) -> None:
    """Prints the rows of a network."""
    print(f"{name}: {network.name}\n{_HEAD}", flush=True)
    for seed in seeds:
        started, of_seed = time.monotonic(), {**options, "seed": seed}
        generators = generators_of(network, of_seed)
        for count in bits:
            found = rows_of(network, count, generators, of_seed)
            for dataset, rows in found.items():
                for row, numbers in rows.items():
                    text = line_of(numbers, rows["float"])
                    head = f"{count:4} {seed:4} {dataset:10} {row:14}"
                    print(f"{head} {text}", flush=True)
        print(f"seed {seed}: {time.monotonic() - started:.0f} s", flush=True)


SMOKE = (
    *("--exports", UNTRAINED, "--bits", "4", "--image-size", "16", "--images", "4"),
    *("--batch-size", "8", "--generator-steps", "2", "--student-steps", "2"),
    *("--slices", "1"),
)


def opened(export: str, cache: str, slices: int) -> ImageNetwork:
    """Returns an export's network; a tiny one that sees the phantom for `UNTRAINED`."""
    if export == UNTRAINED:
        data = {"embedded": ("phantom",), "size": 64, "limit": slices, "cache": cache}
        return untrained_denoiser("", **data)
    return open_denoiser(export, cache=cache, limit=slices)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = create_parser(__doc__)
    parser.add_argument("--exports", nargs="*", default=["weights/unet"])
    parser.add_argument("--bits", nargs="*", type=int, default=[8, 6, 4])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--generator-steps", type=int, default=150)
    parser.add_argument("--student-steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--first-bound", type=float, default=LAST_BOUND)
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--cache", default="")
    args = parse(parser, argv, SMOKE)
    with tempfile.TemporaryDirectory() as folder:
        for export in args.exports:
            network = opened(export, args.cache or folder, args.slices)
            measure(network, export, args.bits, args.seeds, vars(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())

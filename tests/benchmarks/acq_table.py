"""Makes the tables of docs/acq.md on data-free quantization, from runs of one recipe.

    python -m tests.benchmarks.acq_table --weights FILE --images NPZ --folder DIR \
        [--recipe acq_r20_cifar10] [--seeds 1 2 3] [--bits 3 4] \
        [--every-seed gdfq acq] [--set KEY=VALUE ...] [--smoke] \
        --methods acq gdfq center pair consistency published,gdfq

Each run is the recipe with a variant, a seed and a number of bits,
through the command line. A complete run is not repeated. Seeds after the first run only
the methods of `--every-seed`. All bits of a method and seed share the generator, which
does not depend on them. The first method's first seed gives the baselines.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from acq.report.naming import ROW_NAMES
from acq.tasks.tables import format_runs
from common.text_table import format_table
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.shared.stand_ins import write_images, write_weights

ROOT = Path(__file__).parents[2]


def run(options: argparse.Namespace, method: str, seed: int, bits: int) -> dict:
    """Returns the results of one run, which it starts if they are missing."""
    name = f"{method.replace(',', '-')}-s{seed}"
    workdir = options.folder / f"{name}-w{bits}a{bits}"
    is_first = (method, seed) == (options.methods[0], options.seeds[0])
    # A published generator learns in one loop with its student.
    has_phase = not options.own and "published" not in method.split(",")
    results = workdir / "results.json"
    if not results.exists():
        generator = options.folder / f"{name}-w{options.bits[0]}a{options.bits[0]}"
        shared = ["--config.generator.path", str(generator / "generator")]
        command = [
            *(sys.executable, "launch.py", "--workdir", str(workdir)),
            *("--config", f"configs/{options.recipe}.py:{method},w{bits}a{bits}"),
            f"--config.teacher.weights={options.weights}",
            f"--config.eval.path={options.images}",
            f"--config.seed={seed}",
            *([] if is_first else ["--config.baselines.run=()"]),
            *(shared if bits != options.bits[0] and has_phase else []),
            *(f"--config.{change}" for change in options.set),
        ]
        started = time.monotonic()
        subprocess.run(command, cwd=ROOT, check=True)
        print(f"{workdir.name}: {time.monotonic() - started:.0f} s", flush=True)
    return json.loads(results.read_text())


def main(command_line: Sequence[str] | None = None) -> None:
    """Starts the missing runs and prints the tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--recipe", default="acq_r20_cifar10", help="of configs/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--methods", nargs="+", default=["acq", "gdfq"])
    parser.add_argument("--every-seed", nargs="+", default=["gdfq", "acq"])
    parser.add_argument(
        "--own", action="store_true", help="a generator for each number of bits"
    )
    parser.add_argument("--set", nargs="*", default=[], help="key=value of the config")
    with tempfile.TemporaryDirectory() as folder:
        print_tables(parse(parser, command_line, lambda: smoke(Path(folder))))


def smoke(folder: Path) -> list[str]:
    """Writes weights and images; returns the arguments of tiny runs with them."""
    weights, images = folder / "weights.npz", folder / "images.npz"
    write_weights(weights)
    write_images(images, 20)
    changes = (
        *("teacher.depth=8", "generator.width=8", "generator.latent=8"),
        *("generator.warmup=1 steps", "train.duration=1 steps", "train.batch_size=8"),
        *("train.log=1 steps", "train.evaluate=1 steps", "train.save=1 steps"),
        *("train.looked_at=8", "baselines.batches=1", "baselines.run=('noise',)"),
    )
    return [
        *(f"--weights={weights}", f"--images={images}", f"--folder={folder}"),
        *("--seeds=1", "--methods=acq", "--bits", "4", "--set", *changes),
    ]


def print_tables(options: argparse.Namespace) -> None:
    """Starts the missing runs and prints a table for each number of bits."""
    found: dict[int, dict[str, list[dict]]] = {bits: {} for bits in options.bits}
    for seed in options.seeds:
        for method in options.methods:
            if seed != options.seeds[0] and method not in options.every_seed:
                continue
            for bits in options.bits:
                result = run(options, method, seed, bits)
                found[bits].setdefault(method, []).append(result)
    for bits, runs in found.items():
        first = next(iter(runs.values()))[0]
        rows = [("teacher, float", first["teacher"]["top1"])]
        rows += [(ROW_NAMES[k], v["top1"]) for k, v in first["baselines"].items()]
        print(format_table(["network", "top-1 %"], rows, title=f"W{bits}A{bits}"))
        print(format_runs(runs) + "\n")


if __name__ == "__main__":
    main()

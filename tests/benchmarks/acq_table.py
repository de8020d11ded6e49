"""The tables of docs/acq.md, data-free quantization: runs of one recipe, side by side.

  python -m tests.benchmarks.acq_table --weights FILE --images NPZ --folder DIR \
      --seeds 1 2 3 --bits 3 4 --methods acq gdfq center pair consistency published,gdfq

Each run is the recipe `acq_r20_cifar10` with a variant, a seed and a number of bits, by
the command line; one that is complete is not run again. Methods after the first seed
are run only where `--every-seed` names them. Bits of one method and seed share the
generator, which does not depend on them; baselines are those of the first method's
first seed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from acq.tasks.tables import ROW_NAMES, format_runs
from common.report import format_table

ROOT = Path(__file__).parents[2]


def run(options: argparse.Namespace, method: str, seed: int, bits: int) -> dict:
    """The results of one run."""
    name = f"{method.replace(',', '-')}-s{seed}"
    workdir = options.folder / f"{name}-w{bits}a{bits}"
    is_first = (method, seed) == (options.methods[0], options.seeds[0])
    # A published generator has no phase apart from its student's.
    has_phase = not options.own and "published" not in method.split(",")
    results = workdir / "results.json"
    if not results.exists():
        generator = options.folder / f"{name}-w{options.bits[0]}a{options.bits[0]}"
        shared = ["--config.generator.path", str(generator / "generator")]
        command = [
            *(sys.executable, "launch.py", "--workdir", str(workdir)),
            *("--config", f"configs/acq_r20_cifar10.py:{method},w{bits}a{bits}"),
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


def main() -> None:
    """Runs what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--methods", nargs="+", default=["acq", "gdfq"])
    parser.add_argument("--every-seed", nargs="+", default=["gdfq", "acq"])
    parser.add_argument("--own", action="store_true", help="a generator for each bits")
    parser.add_argument("--set", nargs="*", default=[], help="key=value of the config")
    options = parser.parse_args()
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

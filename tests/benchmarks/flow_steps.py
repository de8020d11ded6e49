"""Measures the quality of a trained flow model by the number of its sampler's steps.

    python -m tests.benchmarks.flow_steps --workdir RUN [--steps 1 2 4 8 16 50]
        [--samplers euler heun midpoint] [--slices N] [--smoke]

RUN is the workdir of a finished training of `fm` or `ffm` (`--task train`). Its
exported network denoises the run's test split. The reference is what
`config.evaluate.label` says, for each data set by itself. Seconds a slice time the
compiled network alone and are the best of three batches. `calls` counts the calls of
the network for a slice: Heun and midpoint call it twice a step.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from common.checkpoint import load_manifest, load_variables
from common.config import ConfigDict
from common.errors import UserError
from common.text_table import format_table
from ipv2.measures.metrics import WINDOWS
from ipv2.models import FLOWS
from ipv2.tasks import settings
from ipv2.tasks.evaluate import evaluate
from ipv2.tasks.references import references_of
from ipv2.tasks.sources import open_sources
from ipv2.training.denoiser import Flow, make_denoise
from ipv2.training.flow import SAMPLERS
from ipv2.training.stacks import Stacks
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.benchmarks.shared.stand_ins import train_flow

STEPS = (1, 2, 4, 8, 16, 50)
CALLS = {"euler": 1, "heun": 2, "midpoint": 2}


def load_config(workdir: Path) -> ConfigDict:
    """Returns the run's config, with the exported network as its model.

    Raises:
      UserError: The folder holds no run, or its network is not a flow.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"--workdir: {path} is missing; give a finished training")
    config = ConfigDict(_tuples(json.loads(path.read_text(encoding="utf-8"))))
    with config.unlocked():
        config.model = ConfigDict(_tuples(load_manifest(workdir / "export")["model"]))
    if config.model.name not in FLOWS:
        raise UserError(
            f"--workdir: {workdir} holds {config.model.name}, which has no steps; "
            f"accepted: {sorted(FLOWS)}"
        )
    return config


def _tuples(value: Any) -> Any:
    """Returns the value with tuples for lists, as JSON has no tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def seconds_a_slice(denoiser: Flow, variables: Any, batch: jax.Array) -> float:
    """Returns the best of three, without compilation."""
    denoise = jax.jit(make_denoise(denoiser))
    jax.block_until_ready(denoise(variables, batch))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(denoise(variables, batch))
        best = min(best, time.perf_counter() - start)
    return best / len(batch)


def measure(
    workdir: Path, samplers: list[str], steps: list[int], slices: int = 0
) -> Iterator[tuple[Any, ...]]:
    """Yields rows of each data set and sampler; those of the input come first.

    A row is (data set, sampler, steps, calls, PSNR, RMSE, lung bias, seconds).
    """
    config = load_config(workdir)
    if slices:
        config.evaluate.slices = slices
    trained = settings.denoiser(config)
    like = jax.eval_shape(lambda: trained.init(jax.random.key(0)))
    variables = load_variables(workdir / "export", like)
    sources = open_sources(config)
    test, references = sources.held_out, references_of(sources, config)
    stack = Stacks(test, trained.slices)[0]["lq"]
    image = jnp.moveaxis(jnp.asarray(stack, jnp.float32), 0, -1)
    batch = jnp.stack([image] * config.evaluate.batch_size)

    def numbers(block: dict[str, Any], image: str) -> tuple[Any, ...]:
        found = block[image]
        lung = found["regions"]["lung"]["bias_hu"]
        return found["psnr_db"]["lung"], found["rmse_hu"]["full"], lung

    first = True
    for sampler in samplers:
        for count in steps:
            denoiser = Flow(
                model=trained.model,
                sampler=sampler,
                steps=count,
                dropout_in_evaluation=config.flow.dropout_in_evaluation,
            )
            name = f"{sampler} {count}"
            blocks = evaluate(denoiser, variables, test, config, references, name=name)[
                "datasets"
            ]
            if first:
                for dataset, block in blocks.items():
                    yield dataset, "input", None, None, *numbers(block, "input"), None
                first = False
            seconds = seconds_a_slice(denoiser, variables, batch)
            calls = CALLS[sampler] * count
            for dataset, block in blocks.items():
                found = numbers(block, "output")
                yield dataset, sampler, count, calls, *found, seconds


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = create_parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument(
        "--samplers", nargs="+", choices=sorted(SAMPLERS), default=list(SAMPLERS)
    )
    parser.add_argument("--slices", type=int, default=0, help="0: the run's own choice")
    with tempfile.TemporaryDirectory() as folder:
        arguments = parse(parser, command_line, lambda: smoke(Path(folder) / "run"))
        try:
            rows = list(
                measure(
                    arguments.workdir,
                    arguments.samplers,
                    arguments.steps,
                    arguments.slices,
                )
            )
        except UserError as error:
            parser.error(str(error))
    print(
        format_table(
            [
                "data set",
                "sampler",
                "steps",
                "calls",
                f"PSNR dB\n{WINDOWS['lung']}",
                "RMSE HU\nfull",
                "lung bias\nHU",
                "seconds\na slice",
            ],
            rows,
            digits=[0, 0, 0, 0, 2, 1, 1, 3],
            title=f"{arguments.workdir}",
        )
    )


def smoke(workdir: Path) -> list[str]:
    """Trains a tiny network; returns the arguments of a run with it."""
    train_flow(workdir)
    return [f"--workdir={workdir}", "--steps=1", "--samplers", "euler", "heun"]


if __name__ == "__main__":
    main()

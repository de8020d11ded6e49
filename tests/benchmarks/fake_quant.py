"""Times `fake_quant`, forward and gradients, against plain elementwise operations.

    [taskset -c 0] python -m tests.benchmarks.fake_quant [--repeats 30] [--smoke]

The input is a float32 tensor of 64x32x32x64 with one range. Each line is the best of
the repeats: processor time on one core, which excludes other programs, wall time on
several. A line times a compiled function that returns the output and the gradients of
x, low and high for a given gradient of the output. "ratio" divides by the mean of the
plain operations, which move the same bytes: two arrays forward, three back.
"""

import functools
import os
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from acq.kernels.fake_quant import Gradient, fake_quant
from acq.kernels.grid import Grid
from tests.benchmarks.shared.arguments import create_parser, parse

PLAIN = {
    "clip": lambda x, low, high: jnp.clip(x, low, high),
    "leaky ReLU": lambda x, low, high: jax.nn.leaky_relu(x, 0.2),
}
KINDS: tuple[Gradient, ...] = ("identity", "clipped", "learned")


def cases() -> dict[str, Callable]:
    """Returns the operations by name."""
    grid = Grid(4)
    return PLAIN | {
        f"fake_quant, {kind}": functools.partial(fake_quant, grid=grid, gradient=kind)
        for kind in KINDS
    }


def forward_and_gradients(operation: Callable, learned: bool) -> Callable:
    """Returns a compiled function; the range has gradients only if it is learned."""

    @jax.jit
    def run(x, low, high, g):
        if learned:
            y, transpose = jax.vjp(operation, x, low, high)
        else:
            y, transpose = jax.vjp(lambda x: operation(x, low, high), x)
        return y, transpose(g)

    return run


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints a line for every operation."""
    parser = create_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64, help="first side of x")
    options = parse(parser, command_line, ["--repeats=1", "--batch=2"])
    shape = (options.batch, 32, 32, 64)
    cores = len(os.sched_getaffinity(0))
    clock = time.process_time if cores == 1 else time.perf_counter
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
    arguments = (x, jnp.float32(-1), jnp.float32(2), g)
    runs = {
        name: forward_and_gradients(operation, "learned" in name)
        for name, operation in cases().items()
    }
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        jax.block_until_ready(run(*arguments))  # Compiles.
    for _ in range(options.repeats):
        for name, run in runs.items():
            start = clock()
            jax.block_until_ready(run(*arguments))
            best[name] = min(best[name], clock() - start)
    plain = float(np.mean([best[name] for name in PLAIN]))
    print(f"{cores} core(s), {clock.__name__}")
    for name, seconds in best.items():
        print(f"{name:22} {1e3 * seconds:7.2f} ms   ratio {seconds / plain:.2f}")


if __name__ == "__main__":
    main()

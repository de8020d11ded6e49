"""Times the denoisers against plain PyTorch modules of the same shape, side by side.

    python -m tests.benchmarks.denoiser_step [NAMES] [--repeats 5] [--plain]
        [--batch 8] [--patch 64] [--slice 512] [--width W] [--cpu-time] [--smoke]

Times one training step (forward, gradients, Adam) on 8 patches of 64x64, and the
forward pass on one 512x512 slice, on CPU. The candidates take turns, so that a busy
machine slows all alike; each time is the best of the repeats. PyTorch takes part if it
is installed (requirements-oracles.txt), in channels-last layout and with our weights.
Its output and its training loss must agree with ours before the timing starts.
`--plain` adds our networks on the convolutions of lax, which take up to a minute a
step.

PyTorch's threads wait for each other after every layer, so they lose more than ours
when other programs use the machine. `taskset -c 0 python -m
tests.benchmarks.denoiser_step --cpu-time` then compares the processor time of one
thread each.

To add a network, add an `Entry` with a PyTorch twin to `NETWORKS`.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from common import convolution, depthwise
from ipv2.models import create_model
from tests.benchmarks.shared.arguments import create_parser, parse

LEARNING_RATE = 1e-4


def image_alone(rng: np.random.Generator, n: int, size: int) -> tuple[jax.Array, ...]:
    """Returns the arguments of a regression network."""
    return (jnp.asarray(rng.normal(0, 0.3, (n, size, size, 1)), jnp.float32),)


def image_and_time(
    rng: np.random.Generator, n: int, size: int
) -> tuple[jax.Array, ...]:
    """Returns the arguments of a flow network."""
    time = jnp.asarray(rng.uniform(0, 1, n), jnp.float32)
    return *image_alone(rng, n, size), time


def flow_twin(model: nn.Module, variables: Mapping[str, Any]) -> Any:
    """Returns the flow network in PyTorch, with our weights."""
    from tests.oracles import torch_ffm

    return torch_ffm.create_twin(model, variables)


def torch_twin(model: nn.Module, variables: Mapping[str, Any]) -> Any:
    """Returns the network in PyTorch, with our weights."""
    from tests.oracles import torch_denoisers

    return torch_denoisers.create_twin(model, variables)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A network to time.

    Attributes:
      model: our network.
      twin: returns a PyTorch module from our network and its variables. The module
        takes the arguments of ours, images as NCHW.
      arguments: returns the arguments of the network; half of the first is the target
        of training.
      training: keyword arguments of our network in training.
      tolerance: greatest relative difference of the outputs, as root mean square.
    """

    model: nn.Module
    twin: Callable[[nn.Module, Mapping[str, Any]], Any] = torch_twin
    arguments: Callable[[np.random.Generator, int, int], tuple[jax.Array, ...]] = (
        image_alone
    )
    training: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"train": True}
    )
    # Rounding in dozens of float32 layers.
    tolerance: float = 1e-3


def flow_entry(name: str, **attributes: Any) -> Entry:
    """Returns a flow network without dropout, as the twins have none."""
    return Entry(
        model=create_model(name, dropout=0.0, **attributes),
        twin=flow_twin,
        arguments=image_and_time,
        training={},
        # FFM: at the four real frequencies of a map, rounding of the imaginary part
        # decides whether the phase of a negative value is pi or -pi. Width 32 agrees
        # to 2e-6 in float32 but only to 6e-4 with float64; width 64 to 2e-2.
        tolerance=5e-2,
    )


NETWORKS: dict[str, Callable[..., Entry]] = {
    name: lambda name=name, **attributes: Entry(model=create_model(name, **attributes))
    for name in ("redcnn", "dncnn", "nafnet", "unet", "restormer", "cnn10")
} | {name: functools.partial(flow_entry, name) for name in ("ffm", "fm")}
DEFAULT = ("redcnn", "dncnn", "nafnet", "ffm")


def create_jax_cases(
    entry: Entry, variables: Any, batch: Sequence[Any], whole: Sequence[Any]
) -> tuple[dict[str, Callable[[], Any]], float]:
    """Returns the compiled calls 'train' and 'slice', and the first step's loss."""
    optimizer = optax.adam(LEARNING_RATE)
    model, target = entry.model, 0.5 * batch[0]

    @jax.jit
    def train_step(variables, state):
        fixed = {key: value for key, value in variables.items() if key != "params"}

        def loss(params):
            output, updated = model.apply(
                {"params": params, **fixed},
                *batch,
                **entry.training,
                mutable=list(fixed),
            )
            return jnp.mean(jnp.square(output - target)), updated

        grad = jax.value_and_grad(loss, has_aux=True)
        (value, updated), gradients = grad(variables["params"])
        updates, state = optimizer.update(gradients, state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **updated}, state, value

    apply = jax.jit(lambda variables: model.apply(variables, *whole))
    state = optimizer.init(variables["params"])
    _, _, value = train_step(variables, state)
    jax.block_until_ready(apply(variables))
    cases = {
        "train": lambda: jax.block_until_ready(train_step(variables, state)),
        "slice": lambda: jax.block_until_ready(apply(variables)),
    }
    return cases, float(value)


def create_torch_cases(
    entry: Entry, variables: Any, batch: Sequence[Any], whole: Sequence[Any]
) -> tuple[dict[str, Callable[[], Any]], float]:
    """Returns the same in PyTorch, after a check that its output is the same."""
    import torch

    from tests.oracles.torch_denoisers import from_torch, to_torch

    torch.set_num_threads(cores())
    network = entry.twin(entry.model, variables)
    ours = jax.jit(entry.model.apply)(variables, *batch)
    batch, whole = ([to_torch(a) for a in part] for part in (batch, whole))
    target = 0.5 * batch[0]
    with torch.no_grad():
        output = from_torch(network(*batch))
    apart = np.linalg.norm(output - ours) / np.linalg.norm(ours)
    if not apart <= entry.tolerance:
        raise AssertionError(f"PyTorch's output differs from ours by {apart:.1e}")
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)

    def train():
        network.train()
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(*batch), target)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def infer():
        network.eval()
        with torch.no_grad():
            network(*whole)

    loss = float(train())
    infer()
    return {"train": train, "slice": infer}, loss


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def perturbed(variables: Any, rng: np.random.Generator) -> Any:
    """Returns the variables moved off their zeros, so that every layer counts."""
    return jax.tree.map(
        lambda leaf: (
            leaf + jnp.asarray(0.02 * rng.normal(size=leaf.shape), leaf.dtype)
            if leaf.ndim < 2
            else leaf
        ),
        variables,
    )


def measure(entry: Entry, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns the best seconds by implementation and task."""
    rng = np.random.default_rng(0)
    batch = entry.arguments(rng, options.batch, options.patch)
    whole = entry.arguments(rng, 1, options.slice)
    variables = jax.jit(entry.model.init)(jax.random.key(0), *batch)
    variables = {**variables, "params": perturbed(variables["params"], rng)}
    cases, losses = {}, {}

    def add(name, create):
        cases[name], losses[name] = create(entry, variables, batch, whole)

    add("ours", create_jax_cases)
    if options.plain:
        # The calls compile when they are created, so the patches act while tracing.
        with contextlib.ExitStack() as stack:
            for module, name, plain in (
                (convolution, "_convolve", convolution.plain_convolution),
                (depthwise, "_convolve", depthwise.plain_depthwise),
            ):
                stack.enter_context(mock.patch.object(module, name, plain))
            add("plain lax", create_jax_cases)
    if importlib.util.find_spec("torch"):
        add("PyTorch", create_torch_cases)
    for name, loss in losses.items():
        rtol = entry.tolerance
        np.testing.assert_allclose(loss, losses["ours"], rtol=rtol, err_msg=name)
    clock = time.process_time if options.cpu_time else time.perf_counter
    best = {name: dict.fromkeys(cases[name], float("inf")) for name in cases}
    for _ in range(options.repeats):
        for name, tasks in cases.items():
            for task, run in tasks.items():
                start = clock()
                run()
                seconds = clock() - start
                best[name][task] = min(best[name][task], seconds)
    return best


def print_table(name: str, best: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints images a second, and the time as a multiple of PyTorch's."""
    for task, title, images in (
        ("train", f"step, {options.batch} x {options.patch}^2", options.batch),
        ("slice", f"forward, 1 x {options.slice}^2", 1),
    ):
        for form, seconds in best.items():
            line = f"{name:10} {title:20} {form:10} {seconds[task]:8.3f} s "
            line += f"{images / seconds[task]:8.2f} images/s"
            if "PyTorch" in best and form != "PyTorch":
                line += f" {seconds[task] / best['PyTorch'][task]:6.2f}x PyTorch's time"
            print(line, flush=True)


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints a table for every network."""
    parser = create_parser(__doc__)
    parser.add_argument("names", nargs="*", default=DEFAULT)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--slice", type=int, default=512)
    parser.add_argument("--width", type=int, help="features of the first layer")
    parser.add_argument("--plain", action="store_true", help="also plain lax")
    parser.add_argument("--cpu-time", action="store_true", help="on one core only")
    smoke = ["redcnn", "--repeats=1", "--plain", "--width=8"]
    smoke += ["--batch=1", "--patch=32", "--slice=32"]
    options = parse(parser, command_line, smoke)
    if options.cpu_time and cores() > 1:
        parser.error("--cpu-time adds up threads: run it on one core, taskset -c 0")
    unknown = sorted(set(options.names) - set(NETWORKS))
    if unknown:
        parser.error(f"names: got {unknown}, accepted: {list(NETWORKS)}")
    if not importlib.util.find_spec("torch"):
        print("without PyTorch, which is not installed (requirements-oracles.txt)")
    print(f"best of {options.repeats}, {cores()} cores")
    for name in options.names:
        attributes = {}
        if options.width is not None:
            attributes["width"] = options.width
        print_table(name, measure(NETWORKS[name](**attributes), options), options)


if __name__ == "__main__":
    main()

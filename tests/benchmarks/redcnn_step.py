"""Times RED-CNN against plain lax convolutions and against PyTorch, side by side.

    python -m tests.benchmarks.redcnn_step [--repeats 5] [--features 96] [--plain]

One training step (forward, gradients, Adam) on 8 patches of 64x64 and the forward pass
on one 512x512 slice, on CPU, in alternation, so that a busy machine slows all alike;
the best of the repeats is printed. PyTorch takes part if it is installed
(requirements-oracles.txt), in channels-last layout, from the same weights, and the
outputs must agree before anything is timed.
"""

import argparse
import importlib.util
import itertools
import os
import time
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ipv2.kernels import convolution
from ipv2.models import REDCNN

BATCH, PATCH, SLICE = 8, 64, 512


def create_jax_cases(model: REDCNN, variables, x, y) -> dict[str, Callable[[], None]]:
    """'train' and 'slice', compiled."""
    optimizer = optax.adam(1e-4)

    @jax.jit
    def train_step(variables, state, x, y):
        def loss(variables):
            return jnp.mean(jnp.square(model.apply(variables, x) - y))

        value, gradients = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(variables, updates), state, value

    apply = jax.jit(model.apply)
    state = optimizer.init(variables)
    whole = jnp.zeros((1, SLICE, SLICE, 1))
    cases = {
        "train": lambda: jax.block_until_ready(train_step(variables, state, x, y)),
        "slice": lambda: jax.block_until_ready(apply(variables, whole)),
    }
    for case in cases.values():
        case()
    return cases


def create_torch_cases(features: int, variables, x, y, expected):
    """The same two in PyTorch, after checking that it computes the same output."""
    import torch
    from torch import nn

    torch.set_num_threads(os.cpu_count() or 1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [1] + [features] * 5
            self.encoder = nn.ModuleList(
                nn.Conv2d(a, b, 5) for a, b in itertools.pairwise(widths)
            )
            widths = widths[::-1]
            self.decoder = nn.ModuleList(
                nn.ConvTranspose2d(a, b, 5) for a, b in itertools.pairwise(widths)
            )

        def forward(self, x):
            kept = [x]
            for layer in self.encoder:
                kept.append(torch.relu(layer(kept[-1])))
            y = kept[5]
            for index, layer in enumerate(self.decoder):
                y = layer(y)
                if index in (0, 2):
                    y = y + kept[4 - index]
                if index < 4:
                    y = torch.relu(y)
            return x + y

    network = Network().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for index in range(5):
            ours = variables["params"][f"encoder{index + 1}"]
            kernel = np.asarray(ours["kernel"])
            network.encoder[index].weight.copy_(
                torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
            )
            network.encoder[index].bias.copy_(torch.tensor(np.asarray(ours["bias"])))
            ours = variables["params"][f"decoder{index + 1}"]
            kernel = np.asarray(ours["kernel"])[::-1, ::-1]
            network.decoder[index].weight.copy_(
                torch.tensor(kernel.transpose(2, 3, 0, 1).copy())
            )
            network.decoder[index].bias.copy_(torch.tensor(np.asarray(ours["bias"])))

    def to_torch(a):
        a = torch.tensor(np.asarray(a).transpose(0, 3, 1, 2).copy())
        return a.to(memory_format=torch.channels_last)

    x, y = to_torch(x), to_torch(y)
    whole = torch.zeros((1, 1, SLICE, SLICE)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        output = network(x).numpy().transpose(0, 2, 3, 1)
    # Ten float32 layers of 2,400 products each: rounding stays near 1e-5 of the output.
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def train():
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()

    def infer():
        with torch.no_grad():
            network(whole)

    return {"train": train, "slice": infer}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--features", type=int, default=96)
    parser.add_argument(
        "--plain", action="store_true", help="also plain lax: up to a minute a step"
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0, 0.3, (BATCH, PATCH, PATCH, 1)), jnp.float32)
    y = 0.5 * x
    model = REDCNN(features=arguments.features)
    variables = model.init(jax.random.key(0), x)
    cases = {"ours": create_jax_cases(model, variables, x, y)}
    if arguments.plain:
        # Cases are compiled when created: the patch is in force while tracing.
        with mock.patch.object(convolution, "_convolve", convolution.plain_convolution):
            cases["plain lax"] = create_jax_cases(model, variables, x, y)
    if importlib.util.find_spec("torch"):
        expected = np.asarray(model.apply(variables, x))
        cases["PyTorch"] = create_torch_cases(
            arguments.features, variables, x, y, expected
        )
    else:
        print("PyTorch is not installed (requirements-oracles.txt): not compared")

    best = {(name, task): float("inf") for name in cases for task in cases[name]}
    for _ in range(arguments.repeats):
        for name, task in best:
            start = time.perf_counter()
            cases[name][task]()
            best[name, task] = min(best[name, task], time.perf_counter() - start)
    last = list(cases)[-1]
    print(f"seconds, best of {arguments.repeats}; ratio to {last}")
    for task, title in (
        ("train", f"training step, {BATCH} patches of {PATCH}x{PATCH}"),
        ("slice", f"forward, one {SLICE}x{SLICE} slice"),
    ):
        print(title)
        for name in cases:
            seconds = best[name, task]
            print(f"  {name:10} {seconds:8.3f} {seconds / best[last, task]:7.2f}x")


if __name__ == "__main__":
    main()

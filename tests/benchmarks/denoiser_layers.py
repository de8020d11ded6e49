"""Times every kind of layer of the denoisers against PyTorch's, forward and gradient.

    taskset -c 0 python -m tests.benchmarks.denoiser_layers [--repeats 5] [--smoke]

Each time is processor time on one core, the best of the repeats. The inputs are 8
images of 64x64 with 64 channels, and 8 of 16x16 with 256. "gradient" times the output
together with the gradients of input and parameters, so it shows a layer that is slow
only backwards. Needs PyTorch (requirements-oracles.txt).
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from ipv2.kernels.block_maximum import block_maximum
from ipv2.kernels.channel_attention import channel_attention
from ipv2.kernels.pixel_shuffle import pixel_shuffle, pixel_unshuffle
from ipv2.models.blocks import (
    ChannelNorm,
    Conv,
    DepthwiseConv,
    DoublingConv,
    HalvingConv,
)
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.oracles.torch_denoisers import ChannelLayerNorm, to_torch


class Function(nn.Module):
    """A layer without parameters."""

    function: Callable[[Any], Any]

    def __call__(self, x):
        return self.function(x)


def attention(x):
    """Returns the attention between channels of a PyTorch tensor, with four heads."""
    n, c, h, w = x.shape
    value = x.reshape(n, 4, c // 4, h * w)
    unit = functional.normalize(value, dim=-1)
    weight = (unit @ unit.transpose(-1, -2)).softmax(-1)
    return (weight @ value).reshape(x.shape)


def layers(c: int) -> dict[str, tuple[nn.Module, Callable[[Any], Any]]]:
    """Returns our layers and PyTorch's by name, for `c` input channels."""
    conv = torch.nn.Conv2d
    ours_attention = Function(lambda x: channel_attention(x, x, x, jnp.ones(4)))
    norm = nn.BatchNorm(use_running_average=False)
    return {
        "3x3": (Conv(c, 3), conv(c, c, 3, padding=1)),
        "5x5 valid": (Conv(c, 5, "valid"), conv(c, c, 5)),
        "5x5 full": (Conv(c, 5, "full"), torch.nn.ConvTranspose2d(c, c, 5)),
        "3x3 to 1": (Conv(1, 3), conv(c, 1, 3, padding=1)),
        "1x1 to double": (Conv(2 * c, 1), conv(c, 2 * c, 1)),
        "depthwise 3x3": (DepthwiseConv(), conv(c, c, 3, padding=1, groups=c)),
        "halving 2x2": (HalvingConv(2 * c), conv(c, 2 * c, 2, stride=2)),
        "doubling 2x2": (
            DoublingConv(c // 2),
            torch.nn.ConvTranspose2d(c, c // 2, 2, stride=2),
        ),
        "batch norm": (norm, torch.nn.BatchNorm2d(c)),
        "channel norm": (ChannelNorm(1e-6), ChannelLayerNorm(c)),
        "attention": (ours_attention, attention),
        "shuffle": (
            Function(lambda x: pixel_shuffle(x, 2)),
            lambda x: functional.pixel_shuffle(x, 2),
        ),
        "unshuffle": (
            Function(lambda x: pixel_unshuffle(x, 2)),
            lambda x: functional.pixel_unshuffle(x, 2),
        ),
        "2x2 maximum": (
            Function(lambda x: block_maximum(x, 2)),
            lambda x: functional.max_pool2d(x, 2),
        ),
    }


def jax_cases(layer: nn.Module, x: np.ndarray) -> tuple[Callable, Callable]:
    """Returns two compiled calls: forward, and forward with gradients."""
    given = jnp.asarray(x)
    variables = layer.init(jax.random.key(0), given)

    @jax.jit
    def forward(variables, x):
        return layer.apply(variables, x, mutable=["batch_stats"])[0]

    @jax.jit
    def gradient(variables, x):
        y, transpose = jax.vjp(forward, variables, x)
        return y, transpose(jnp.ones_like(y))

    return (
        lambda: jax.block_until_ready(forward(variables, given)),
        lambda: jax.block_until_ready(gradient(variables, given)),
    )


def torch_cases(layer: Callable[[Any], Any], x: np.ndarray) -> tuple[Any, Any]:
    """Returns the same two calls in PyTorch, channels last."""
    if isinstance(layer, torch.nn.Module):
        # pyrefly: ignore[no-matching-overload]  # PyTorch's stubs lack this form
        layer = layer.to(memory_format=torch.channels_last)
    given = to_torch(x).requires_grad_()

    def forward():
        with torch.no_grad():
            layer(given)

    def gradient():
        y = layer(given)
        y.backward(torch.ones_like(y))

    return forward, gradient


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints a line for every layer."""
    parser = create_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 256])
    smoke = ["--repeats=1", "--sides=8", "--channels=8"]
    options = parse(parser, command_line, smoke)
    if not options.smoke and len(os.sched_getaffinity(0)) > 1:
        parser.error("processor time adds up threads: run it on one core, taskset -c 0")
    torch.set_num_threads(1)
    print(f"{'ms, ours / PyTorch (ratio)':24} {'forward':>26} {'gradient':>26}")
    for side, channels in zip(options.sides, options.channels, strict=True):
        x = np.random.default_rng(0).normal(size=(8, side, side, channels))
        x = x.astype(np.float32)
        for name, (ours, theirs) in layers(channels).items():
            line = f"{side}^2 x {channels:3} {name:14}"
            pairs = zip(jax_cases(ours, x), torch_cases(theirs, x), strict=True)
            for pair in pairs:
                best = [float("inf")] * 2
                for _ in range(options.repeats + 1):  # The first compiles.
                    for which, run in enumerate(pair):
                        start = time.process_time()
                        run()
                        seconds = time.process_time() - start
                        best[which] = min(best[which], seconds)
                a, b = (1e3 * seconds for seconds in best)
                line += f" {a:9.2f} / {b:7.2f} ({a / b:4.2f})"
            print(line, flush=True)


if __name__ == "__main__":
    main()

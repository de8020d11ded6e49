"""FM and FFM as plain PyTorch modules: references for values and for speed.

Written from the equations with PyTorch's own layers: strided convolutions, images that
are enlarged before they are convolved, 1x1 convolutions, depthwise groups,
`torch.angle`. Modules are named as in our networks, so that weights map by name.
"""

import itertools
import math
import re

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def norm(features):
    return nn.GroupNorm(8, features, eps=1e-6)


phase_of = torch.angle


class Polar(nn.Module):
    """Two 1x1 convolutions on magnitude and on phase."""

    def __init__(self, features):
        super().__init__()
        for name in ("magnitude1", "magnitude2", "phase1", "phase2"):
            setattr(self, name, nn.Conv2d(features, features, 1))

    def forward(self, x):
        z = torch.fft.rfft2(x)
        magnitude = functional.leaky_relu(self.magnitude1(z.abs()), 0.1)
        phase = functional.leaky_relu(self.phase1(phase_of(z)), 0.1)
        magnitude, phase = self.magnitude2(magnitude), self.phase2(phase)
        # Not `torch.polar`, whose gradient has the wrong sign at negative magnitudes.
        z = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        return torch.fft.irfft2(z, s=x.shape[-2:])


class Mixer(nn.Module):
    def __init__(self, features):
        super().__init__()
        half = features // 2
        self.high1 = nn.Conv2d(half, half, 1, bias=False)
        self.high2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.low = nn.Conv2d(half, half, 3, 1, 1, bias=False)
        self.norm = norm(half)
        self.fuse = nn.Conv2d(features, features, 3, 1, 1, groups=features, bias=False)
        self.spatial = nn.Conv2d(features, features, 1)
        self.frequency = Polar(features)
        self.out = nn.Conv2d(2 * features, features, 1)

    def forward(self, x):
        high, low = x.chunk(2, 1)
        high = functional.gelu(self.high2(self.high1(high)))
        low = functional.gelu(self.norm(self.low(functional.avg_pool2d(low, 2))))
        both = torch.cat([high, functional.interpolate(low, scale_factor=2)], 1)
        fused = both + self.fuse(both)
        both = torch.cat([self.spatial(fused), self.frequency(fused)], 1)
        return fused + self.out(both)


class Block(nn.Module):
    def __init__(self, channels, features, embedding, mixer):
        super().__init__()
        self.norm1, self.norm2 = norm(channels), norm(features)
        self.conv1 = nn.Conv2d(channels, features, 3, 1, 1)
        self.time = nn.Linear(embedding, features)
        self.layer2 = (
            Mixer(features) if mixer else nn.Conv2d(features, features, 3, 1, 1)
        )
        if channels != features:
            self.shortcut = nn.Conv2d(channels, features, 1)

    def forward(self, x, embedding):
        y = self.conv1(functional.silu(self.norm1(x)))
        y = y + self.time(functional.silu(embedding))[:, :, None, None]
        y = self.layer2(functional.silu(self.norm2(y)))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class Network(nn.Module):
    """FFM if `mixer`, else FM; without dropout. Sides must divide evenly."""

    def __init__(
        self,
        channels=1,
        width=64,
        multipliers=(1, 2, 4, 8),
        mixer=True,
        time_scale=1000.0,
    ):
        super().__init__()
        self.width, self.time_scale = width, time_scale
        self.last = len(multipliers) - 1
        self.time1 = nn.Linear(width, 4 * width)
        self.time2 = nn.Linear(4 * width, 4 * width)
        self.conv_in = nn.Conv2d(channels, width, 3, 1, 1)
        widths = [width * m for m in multipliers]
        kept = [width]

        def block(name, a, b):
            setattr(self, name, Block(a, b, 4 * width, mixer))

        for level, (a, b) in enumerate(itertools.pairwise([width, *widths])):
            block(f"down{level}", a, b)
            kept.append(b)
            if level < self.last:
                setattr(self, f"halve{level}", nn.Conv2d(b, b, 3, 2))
                kept.append(b)
        now = widths[-1]
        block("middle0", now, now)
        block("middle1", now, now)
        for level in reversed(range(len(widths))):
            for index in range(2):
                block(f"up{level}_{index}", now + kept.pop(), widths[level])
                now = widths[level]
            if level:
                setattr(self, f"double{level}", nn.Conv2d(now, now, 3, 1, 1))
        self.norm_out = norm(now)
        self.conv_out = nn.Conv2d(now, channels, 3, 1, 1)

    def forward(self, x, time):
        half = self.width // 2
        rate = math.log(10_000) / (half - 1)
        frequency = torch.exp(-rate * torch.arange(half))
        angle = self.time_scale * time[:, None] * frequency
        embedding = torch.cat([angle.sin(), angle.cos()], 1)
        embedding = self.time2(functional.silu(self.time1(embedding)))
        y = self.conv_in(x)
        kept = [y]
        for level in range(self.last + 1):
            y = getattr(self, f"down{level}")(y, embedding)
            kept.append(y)
            if level < self.last:
                y = getattr(self, f"halve{level}")(functional.pad(y, (0, 1, 0, 1)))
                kept.append(y)
        y = self.middle1(self.middle0(y, embedding), embedding)
        for level in reversed(range(self.last + 1)):
            for index in range(2):
                y = torch.cat([y, kept.pop()], 1)
                y = getattr(self, f"up{level}_{index}")(y, embedding)
            if level:
                y = functional.interpolate(y, scale_factor=2)
                y = getattr(self, f"double{level}")(y)
        return self.conv_out(functional.silu(self.norm_out(y)))


def load(module: nn.Module, params) -> None:
    """Copies our parameters, a nested mapping, into the module of the same names."""
    state = {}

    def walk(tree, path):
        for name, leaf in tree.items():
            if hasattr(leaf, "items"):
                walk(leaf, [*path, name])
                continue
            owner = module.get_submodule(".".join(path))
            leaf = np.asarray(leaf)
            if name == "kernel" and leaf.ndim == 4:
                leaf = leaf.transpose(3, 2, 0, 1)
            elif name == "kernel":
                leaf = leaf.T
                if isinstance(owner, nn.Conv2d):
                    leaf = leaf[:, :, None, None]
            torch_name = {"kernel": "weight", "scale": "weight"}.get(name, name)
            state[".".join([*path, torch_name])] = torch.tensor(leaf.copy())

    walk(params, [])
    module.load_state_dict(state)  # refuses missing, extra and misshapen ones


def create_twin(model, variables) -> Network:
    """The PyTorch network of one of ours, with its weights."""
    twin = Network(
        model.channels,
        model.width,
        model.multipliers,
        mixer=type(model).__name__ == "FFM",
        time_scale=model.time_scale,
    )
    load(twin, variables["params"])
    return twin


# Starts of names here and in the published code, then parts of residual blocks.
_STARTS = (
    (r"time1\.", "temb.dense.0."),
    (r"time2\.", "temb.dense.1."),
    (r"middle0\.", "mid.block_1."),
    (r"middle1\.", "mid.block_2."),
    (r"down(\d)\.", r"down.\1.block.0."),
    (r"up(\d)_(\d)\.", r"up.\1.block.\2."),
    (r"halve(\d)\.", r"down.\1.downsample.conv."),
    (r"double(\d)\.", r"up.\1.upsample.conv."),
)
_PARTS = (
    (r"\.time\.", ".temb_proj."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.layer2\.high1\.", ".conv2.high_mixer.conv1."),
    (r"\.layer2\.high2\.", ".conv2.high_mixer.proj1."),
    (r"\.layer2\.low\.", ".conv2.low_mixer.conv."),
    (r"\.layer2\.norm\.", ".conv2.low_mixer.norm."),
    (r"\.layer2\.fuse\.", ".conv2.conv_fuse."),
    (r"\.layer2\.spatial\.", ".conv2.proj."),
    (r"\.layer2\.frequency\.magnitude1\.", ".conv2.freblock.processmag.0."),
    (r"\.layer2\.frequency\.magnitude2\.", ".conv2.freblock.processmag.2."),
    (r"\.layer2\.frequency\.phase1\.", ".conv2.freblock.processpha.0."),
    (r"\.layer2\.frequency\.phase2\.", ".conv2.freblock.processpha.2."),
    (r"\.layer2\.out\.", ".conv2.finalproj."),
)


def published_state(network):
    """The weights of an FFM under the names of the authors' code."""
    return {published_name(n): a for n, a in network.state_dict().items()}


def published_name(name):
    """The authors' name of a tensor."""
    for pattern, replacement in _STARTS:
        name = re.sub(f"^{pattern}", replacement, name)
    for pattern, replacement in _PARTS:
        name = re.sub(pattern, replacement, name)
    return name

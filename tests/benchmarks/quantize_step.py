"""Times a step of generator and of student against the same in plain PyTorch.

    python -m tests.benchmarks.quantize_step [--recipe r20 | r18] [--variant gdfq | acq]
        [--batch 64] [--repeats 5] [--cpu-time] [--smoke]

The networks are ResNet-20 at 32x32 with random weights and the generator of
`acq_r20_cifar10`; with `--recipe r18`, ResNet-18 at 224x224 and the generator of
`acq_r18`, 16 images at once. The generator's step has images, teacher, cross-entropy,
BNS, gradients and Adam; with `--variant acq` also the window of the centre, the pairs,
and the teacher once more, in training mode. The student's step, at W4A4, has images and
teacher without gradients, the fake-quantized student, KL and hints, learned ranges and
Adam. Both libraries take turns on the CPU; each time is the best of the repeats. Needs
PyTorch (requirements-oracles.txt). On a machine that other programs use, `taskset -c 0
python -m tests.benchmarks.quantize_step --cpu-time` compares the processor time of one
thread each.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from acq.quantization.parts import generator_parts, student_parts
from acq.quantization.states import quantize_state
from acq.tasks.settings import task_settings
from acq.teacher.opening import open_teacher
from acq.training.step_parts import GeneratorState
from acq.training.train_step import make_generator_step, make_quantize_step
from common.config import ConfigDict
from common.devices import pmap_frozen_step, replicate, shard_batch
from configs import acq_r18, acq_r20_cifar10
from tests.benchmarks.shared.arguments import create_parser, parse

LATENT = 100


class FakeQuant(torch.autograd.Function):
    """Rectified values on a grid from 0 to a learned end."""

    @staticmethod
    def forward(context, x, high, steps):
        q = torch.round(x * (steps / high))
        context.save_for_backward(x, high, q)
        context.steps = steps
        return q.clamp(0, steps) * (high / steps)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (g,) = grad_outputs
        x, high, q = ctx.saved_tensors
        inside = (x >= 0) & (x <= high)
        by_high = torch.where(inside, q / ctx.steps - x / high, (x > high).float())
        return g * inside, (g * by_high).sum(), None


def rounded(weight: torch.Tensor, steps: int) -> torch.Tensor:
    """Rounds a weight to the grid of each output channel; the gradient passes."""
    with torch.no_grad():
        flat = weight.flatten(1)
        low, high = flat.amin(1).clamp(max=0), flat.amax(1).clamp(min=0)
        shape = (-1, *[1] * (weight.dim() - 1))
        scale = ((high - low) / steps).view(shape)
        zero = torch.round(-low.view(shape) / scale)
        q = (torch.round(weight / scale) + zero).clamp(0, steps)
        moved = (q - zero) * scale - weight
    return weight + moved


class Conv(nn.Conv2d):
    steps = 0

    def forward(self, input):
        weight = rounded(self.weight, self.steps) if self.steps else self.weight
        return F.conv2d(input, weight, None, self.stride, self.padding)


class Linear(nn.Linear):
    steps = 0

    def forward(self, input):
        weight = rounded(self.weight, self.steps) if self.steps else self.weight
        return F.linear(input, weight, self.bias)


class Act(nn.Module):
    steps = 0

    def __init__(self):
        super().__init__()
        self.high = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        y = F.relu(x)
        self.output = FakeQuant.apply(y, self.high, self.steps) if self.steps else y
        return self.output


class Norm(nn.BatchNorm2d):
    measures = by_batch = False

    def forward(self, input):
        if self.by_batch:
            scale, offset = self.weight, self.bias
            return F.batch_norm(input, None, None, scale, offset, training=True)
        if self.measures:
            assert self.running_mean is not None and self.running_var is not None
            var, mean = torch.var_mean(input, (0, 2, 3), correction=0)
            self.apart = ((mean - self.running_mean) ** 2 / self.running_var).mean()
            self.apart = self.apart + ((var / self.running_var - 1) ** 2).mean()
        return super().forward(input)


class Block(nn.Module):
    """Two convolutions; a projection, or zero channels, where shapes differ."""

    def __init__(self, channels, features, strides, *, projects):
        super().__init__()
        self.conv1 = Conv(channels, features, 3, strides, 1, bias=False)
        self.conv2 = Conv(features, features, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = Norm(features), Norm(features)
        self.act1, self.act2 = Act(), Act()
        self.strides, self.missing = strides, features - channels
        self.project = None
        if projects and self.missing:
            conv = Conv(channels, features, 1, strides, bias=False)
            self.project = nn.Sequential(conv, Norm(features))

    def forward(self, x):
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        if self.project is not None:
            x = self.project(x)
        elif self.missing:
            x = x[:, :, :: self.strides, :: self.strides]
            x = F.pad(x, (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return self.act2(x + y)


class ResNet(nn.Sequential):
    def __init__(self, stem, widths, classes, *, projects):
        blocks = [
            Block(i, o, 2 if i != o else 1, projects=projects)
            for i, o in itertools.pairwise(widths)
        ]
        pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(*stem, *blocks, *pool, Linear(widths[-1], classes))

    def of(self, kind):
        return [module for module in self.modules() if isinstance(module, kind)]


def resnet20() -> ResNet:
    """Returns the network of CIFAR."""
    stem = Conv(3, 16, 3, 1, 1, bias=False), Norm(16), Act()
    widths = [16] * 4 + [32] * 3 + [64] * 3
    return ResNet(stem, widths, 10, projects=False)


def resnet18() -> ResNet:
    """Returns the network of ImageNet."""
    stem = Conv(3, 64, 7, 2, 3, bias=False), Norm(64), Act(), nn.MaxPool2d(3, 2, 1)
    widths = [64] * 3 + [128] * 2 + [256] * 2 + [512] * 2
    return ResNet(stem, widths, 1000, projects=True)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is compared.

    Attributes:
      get_config: of our recipe.
      network: makes PyTorch's.
      size: side of the images.
      classes: number of them.
      parameters: of the network, in both libraries.
    """

    get_config: Callable[[str], ConfigDict]
    network: Callable[[], ResNet]
    size: int
    classes: int
    parameters: int


RECIPES = {
    "r20": Recipe(acq_r20_cifar10.get_config, resnet20, 32, 10, 269_722),
    "r18": Recipe(acq_r18.get_config, resnet18, 224, 1000, 11_689_512),
}


class ClassNorm(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
        self.by_class = nn.Embedding(classes, 2 * channels)

    def forward(self, x, label):
        scale, offset = self.by_class(label)[:, :, None, None].chunk(2, 1)
        return self.norm(x) * (1 + scale) + offset


def window(x: torch.Tensor, center: torch.Tensor, size: int) -> torch.Tensor:
    """Returns `size` x `size` features of larger ones, with the centre as middle."""
    share = size / x.shape[-1]
    turn = torch.eye(2).expand(len(x), 2, 2) * share
    places = torch.cat([turn, center[:, :, None] * share], dim=2)
    grid = F.affine_grid(places, [len(x), x.shape[1], size, size], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


class TorchGenerator(nn.Module):
    def __init__(self, width, recipe, reach):
        super().__init__()
        self.size = recipe.size // 4
        wide = self.size + 2 * math.ceil(reach * self.size / 2)
        self.shape = (-1, width, wide, wide)
        self.dense = nn.Linear(LATENT, width * wide**2)
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width // 2, 3, 1, 1)
        self.conv3 = nn.Conv2d(width // 2, 3, 3, 1, 1)
        widths = (width, width, width // 2)
        self.norms = nn.ModuleList(ClassNorm(w, recipe.classes) for w in widths)
        self.last = nn.BatchNorm2d(3, affine=False, track_running_stats=False)

    def forward(self, latent, label, center):
        x = self.dense(latent).view(self.shape)
        x = window(x, center, self.size) if x.shape[-1] > self.size else x
        x = self.norms[0](x, label)
        x = self.conv1(F.interpolate(x, scale_factor=2))
        x = F.leaky_relu(self.norms[1](x, label), 0.2)
        x = self.conv2(F.interpolate(x, scale_factor=2))
        x = F.leaky_relu(self.norms[2](x, label), 0.2)
        return self.last(torch.tanh(self.conv3(x)))


def attention_of(teacher: ResNet) -> torch.Tensor:
    """Returns the share of each position in the energy of the last features."""
    energy = teacher.of(Act)[-1].output.square().sum(1)
    return energy / energy.sum((1, 2), keepdim=True)


def acq_terms(
    teacher: ResNet, images: torch.Tensor, latent: torch.Tensor, center: torch.Tensor
) -> torch.Tensor:
    """Returns ACQ's three terms, after the teacher's pass in evaluation mode."""
    attention = attention_of(teacher)
    for norm in teacher.of(Norm):
        norm.by_batch = True
    teacher(images)
    for norm in teacher.of(Norm):
        norm.by_batch = False
    consistency = 1 - F.cosine_similarity(
        attention.flatten(1), attention_of(teacher).flatten(1)
    )
    peak = attention.square() / attention.square().sum((1, 2), keepdim=True)
    place = (2 * torch.arange(peak.shape[-1]) + 1) / peak.shape[-1] - 1
    found = torch.stack([(peak * place).sum((1, 2)), (peak.mT * place).sum((1, 2))], 1)
    z, x = ((a[0::2] - a[1::2]).abs().flatten(1).mean(1) for a in (latent, images))
    pair = z / (z + x)
    return (
        1.5 * (found - center).square().sum(1).mean()
        + 0.05 * pair.mean()
        + consistency.mean()
    )


def torch_steps(
    recipe: Recipe, batch: int, width: int, reach: float
) -> tuple[Callable, Callable]:
    """Returns PyTorch's two steps; with `reach`, that of the centres, ACQ's terms."""
    torch.manual_seed(0)
    teacher, student = recipe.network().eval(), recipe.network().eval()
    layers = teacher.of((Conv, Linear, Norm))
    counts = [p.numel() for layer in layers for p in layer.parameters()]
    assert sum(counts) == recipe.parameters, sum(counts)
    teacher.requires_grad_(False)
    student.load_state_dict(teacher.state_dict())
    for module in student.of((Conv, Linear, Act)):
        module.steps = 15
    generator = TorchGenerator(width, recipe, reach)
    adams = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (generator, student)]

    def conditions():
        label = torch.randint(0, recipe.classes, (batch,))
        return torch.randn(batch, LATENT), label, reach * (2 * torch.rand(batch, 2) - 1)

    def generator_step():
        for norm in teacher.of(Norm):
            norm.measures = True
        latent, label, center = conditions()
        images = generator(latent, label, center)
        logits = teacher(images)
        apart = torch.stack([norm.apart for norm in teacher.of(Norm)]).mean()
        loss = 0.5 * F.cross_entropy(logits, label) + apart
        if reach:
            loss = loss + acq_terms(teacher, images, latent, center)
        adams[0].zero_grad()
        loss.backward()
        adams[0].step()
        for norm in teacher.of(Norm):
            norm.measures = False
            del norm.apart

    def student_step():
        with torch.no_grad():
            images = generator(*conditions())
            target = F.log_softmax(teacher(images), 1)
            shown = [act.output for act in teacher.of(Act)]
        found = F.log_softmax(student(images), 1)
        hints = [
            (act.output - t).square().mean() / t.square().mean()
            for act, t in zip(student.of(Act), shown, strict=True)
        ]
        kl = F.kl_div(found, target, reduction="batchmean", log_target=True)
        adams[1].zero_grad()
        (kl + torch.stack(hints).mean()).backward()
        adams[1].step()

    return generator_step, student_step


def our_steps(
    recipe: Recipe, variant: str, batch: int, width: int | None
) -> tuple[Callable, Callable, int, float]:
    """Returns our two steps, and the generator's width and reach of centres."""
    config = recipe.get_config(variant)
    config.teacher.source = "random"
    config.train.batch_size = batch
    if width is not None:
        config.generator.width = width
    teacher = open_teacher(task_settings(config).teacher, Path(), seed=config.seed)
    counts = [p.size for p in jax.tree.leaves(teacher.variables["params"])]
    assert sum(counts) == recipe.parameters, sum(counts)
    variables = replicate(teacher.variables)
    # As PyTorch's generator above.
    config.generator.output, config.generator.shift = "tanh", 0
    run = task_settings(config).quantization
    alone = generator_parts(run, teacher, alone=True)
    beside = generator_parts(run, teacher, alone=False)
    states: dict[str, Any] = {"student": quantize_state(run, teacher)}
    # A copy: each step donates its state.
    states["generator"] = GeneratorState(
        step=jnp.int32(0),
        generator=jax.tree.map(jnp.copy, states["student"].generator),
    )
    states = {name: replicate(state) for name, state in states.items()}
    steps = {
        "generator": make_generator_step(alone),
        "student": make_quantize_step(
            beside, student_parts(run, teacher), generator_learns=False
        ),
    }
    shard = shard_batch({"draw": np.arange(batch, dtype=np.uint32)})

    def make(name):
        step = pmap_frozen_step(steps[name])

        def run():
            states[name], metrics = step(variables, states[name], shard)
            jax.block_until_ready(metrics)

        return run

    reach = 0.0 if variant == "gdfq" else config.generator.reach
    return make("generator"), make("student"), config.generator.width, reach


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints seconds a step and the ratio."""
    parser = create_parser(__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="r20")
    parser.add_argument("--variant", choices=("gdfq", "acq"), default="gdfq")
    parser.add_argument("--batch", type=int, help="64 for r20, 16 for r18")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--width", type=int, help="of the generator; the recipe's")
    smoke = ["--batch=4", "--repeats=1", "--width=8"]
    options = parse(parser, command_line, smoke)
    if options.cpu_time:
        torch.set_num_threads(1)
    clock = time.process_time if options.cpu_time else time.perf_counter
    recipe = RECIPES[options.recipe]
    batch = options.batch or {"r20": 64, "r18": 16}[options.recipe]
    *ours, width, reach = our_steps(recipe, options.variant, batch, options.width)
    theirs = torch_steps(recipe, batch, width, reach)
    print(f"{options.recipe}:{options.variant}, batch {batch}, width {width} of the "
          f"generator, s a step, best of {options.repeats}")  # fmt: skip
    for name, *pair in zip(("generator", "student"), ours, theirs, strict=True):
        seconds: list[list[float]] = [[], []]
        for step in pair:
            step()
        for _ in range(options.repeats):
            for step, taken in zip(pair, seconds, strict=True):
                started = clock()
                step()
                taken.append(clock() - started)
        ours_, theirs_ = map(min, seconds)
        print(f"{name:10} ours {ours_:.3f}  PyTorch {theirs_:.3f}  "
              f"ratio {ours_ / theirs_:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()

"""The denoisers as plain PyTorch modules, written from the papers, and their weights.

Submodules carry the names that ours have, so that one rule moves the weights of all.
Needs PyTorch (requirements-oracles.txt): import it where it is known to be there.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ipv2 import models


def create_twin(model: Any, variables: Mapping[str, Any]) -> nn.Module:
    """Returns the PyTorch form of `model` with its weights, channels last, in eval."""
    twin = TWINS[type(model)](model)
    load_weights(twin, variables)
    return twin.to(memory_format=torch.channels_last).eval()


def to_torch(x: Any) -> torch.Tensor:
    """NHWC as NCHW in channels-last layout; other ranks as they are."""
    x = torch.tensor(np.array(x))
    if x.ndim != 4:
        return x
    return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def from_torch(x: torch.Tensor) -> np.ndarray:
    """NCHW as NHWC."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def load_weights(twin: nn.Module, variables: Mapping[str, Any]) -> None:
    """Copies our variables into `twin`; every one of both sides is used."""
    loaded = 0
    for path, module in twin.named_modules():
        ours = _at(variables["params"], path)
        pairs = {}
        if isinstance(module, nn.ConvTranspose2d):
            kernel = np.asarray(ours["kernel"])
            if module.stride == (1, 1):
                kernel = kernel[::-1, ::-1]
            pairs["weight"] = kernel.transpose(2, 3, 0, 1)
            pairs["bias"] = ours["bias"]
        elif isinstance(module, nn.Conv2d):
            pairs["weight"] = np.asarray(ours["kernel"]).transpose(3, 2, 0, 1)
            if module.bias is not None:
                pairs["bias"] = ours["bias"]
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            pairs = {"weight": ours["scale"], "bias": ours["bias"]}
        else:
            direct = dict(module.named_parameters(recurse=False))
            pairs = {name: ours[name] for name in direct}
        for name, value in pairs.items():
            target = getattr(module, name)
            value = torch.tensor(np.ascontiguousarray(value))
            with torch.no_grad():
                target.copy_(value.reshape(target.shape))
            loaded += value.numel()
        if isinstance(module, nn.BatchNorm2d):
            statistics = _at(variables["batch_stats"], path)
            module.running_mean.copy_(torch.tensor(np.array(statistics["mean"])))
            module.running_var.copy_(torch.tensor(np.array(statistics["var"])))
    expected = sum(np.size(leaf) for leaf in _leaves(variables["params"]))
    held = sum(parameter.numel() for parameter in twin.parameters())
    if not loaded == expected == held:
        raise ValueError(f"moved {loaded} weights of our {expected} to their {held}")


def _at(tree: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        tree = tree.get(name, {})
    return tree


def _leaves(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return itertools.chain.from_iterable(map(_leaves, tree.values()))
    return [tree]


def _centre(x: torch.Tensor) -> torch.Tensor:
    middle = x.shape[1] // 2
    return x[:, middle : middle + 1]


def _pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    below, right = (-side % multiple for side in x.shape[2:])
    return functional.pad(x, (0, right, 0, below), mode="replicate")


class CNN10(nn.Module):
    def __init__(self, model: models.CNN10):
        super().__init__()
        self.conv1 = nn.Conv2d(model.channels, 64, 9)
        self.conv2 = nn.Conv2d(64, 32, 3)
        self.conv3 = nn.Conv2d(32, 1, 5)

    def forward(self, x):
        y = functional.pad(x, (7, 7, 7, 7), mode="replicate")
        y = torch.relu(self.conv2(torch.relu(self.conv1(y))))
        return _centre(x) + self.conv3(y)


class REDCNN(nn.Module):
    def __init__(self, model: models.REDCNN):
        super().__init__()
        widths = [model.channels] + [model.width] * 5
        for index in range(5):
            conv = nn.Conv2d(widths[index], widths[index + 1], model.kernel_size)
            self.add_module(f"encoder{index + 1}", conv)
        widths[0] = 1
        for index in range(5):
            into, out = widths[5 - index], widths[4 - index]
            conv = nn.ConvTranspose2d(into, out, model.kernel_size)
            self.add_module(f"decoder{index + 1}", conv)

    def forward(self, x):
        kept = [_centre(x)]
        y = x
        for index in range(1, 6):
            y = torch.relu(getattr(self, f"encoder{index}")(y))
            kept.append(y)
        for index in range(1, 6):
            y = getattr(self, f"decoder{index}")(y)
            if index in (1, 3, 5):
                y = y + kept[5 - index]
            if index < 5:
                y = torch.relu(y)
        return y


class DnCNN(nn.Module):
    def __init__(self, model: models.DnCNN):
        super().__init__()
        width, self.depth = model.width, model.depth
        self.conv1 = nn.Conv2d(model.channels, width, 3, padding=1)
        for index in range(2, model.depth):
            layer = nn.Module()
            layer.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
            # PyTorch's momentum is the weight of what is new.
            layer.norm = nn.BatchNorm2d(width, eps=1e-4, momentum=0.1)
            self.add_module(f"layer{index}", layer)
        last = nn.Conv2d(width, 1, 3, padding=1, bias=False)
        self.add_module(f"conv{model.depth}", last)

    def forward(self, x):
        y = torch.relu(self.conv1(x))
        for index in range(2, self.depth):
            layer = getattr(self, f"layer{index}")
            y = torch.relu(layer.norm(layer.conv(y)))
        return _centre(x) - getattr(self, f"conv{self.depth}")(y)


class UNet(nn.Module):
    def __init__(self, model: models.UNet):
        super().__init__()
        self.levels = levels = model.levels
        widths = [model.width << level for level in range(levels + 1)]
        before = [model.channels, *widths]
        for level in range(levels):
            name = f"down{level}"
            self.add_module(name, self._pair(before[level], widths[level]))
            double = nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2)
            self.add_module(f"double{level}", double)
            pair = self._pair(2 * widths[level], widths[level])
            self.add_module(f"up{level}", pair)
        self.middle = self._pair(widths[levels - 1], widths[levels])
        self.last = nn.Conv2d(model.width, 1, 1)

    @staticmethod
    def _pair(into, out):
        pair = nn.Module()
        pair.conv1 = nn.Conv2d(into, out, 3, padding=1)
        pair.conv2 = nn.Conv2d(out, out, 3, padding=1)
        return pair

    def _apply_pair(self, name, y):
        pair = getattr(self, name)
        return torch.relu(pair.conv2(torch.relu(pair.conv1(y))))

    def forward(self, x):
        y, kept = _pad_to_multiple(x, 2**self.levels), []
        for level in range(self.levels):
            y = self._apply_pair(f"down{level}", y)
            kept.append(y)
            y = functional.max_pool2d(y, 2)
        y = self._apply_pair("middle", y)
        for level in reversed(range(self.levels)):
            y = torch.cat([kept[level], getattr(self, f"double{level}")(y)], 1)
            y = self._apply_pair(f"up{level}", y)
        y = self.last(y)[:, :, : x.shape[2], : x.shape[3]]
        return _centre(x) + y


class ChannelLayerNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NAFBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1 = ChannelLayerNorm(width, eps=1e-6)
        self.conv1 = nn.Conv2d(width, 2 * width, 1)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attention = nn.Conv2d(width, width, 1)
        self.conv3 = nn.Conv2d(width, width, 1)
        self.norm2 = ChannelLayerNorm(width, eps=1e-6)
        self.conv4 = nn.Conv2d(width, 2 * width, 1)
        self.conv5 = nn.Conv2d(width, width, 1)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x):
        y = self.conv2(self.conv1(self.norm1(x)))
        first, second = y.chunk(2, 1)
        y = first * second
        y = y * self.attention(functional.adaptive_avg_pool2d(y, 1))
        x = x + self.beta * self.conv3(y)
        first, second = self.conv4(self.norm2(x)).chunk(2, 1)
        return x + self.gamma * self.conv5(first * second)


class NAFNet(nn.Module):
    def __init__(self, model: models.NAFNet, out_channels: int = 1):
        super().__init__()
        self.stages = len(model.encoder_blocks)
        width = model.width
        self.first = nn.Conv2d(model.channels, width, 3, padding=1)
        self.counts = {"middle": model.middle_blocks}
        for level, count in enumerate(model.encoder_blocks):
            self._stack(f"encoder{level}", count, width)
            halve = nn.Conv2d(width, 2 * width, 2, stride=2)
            self.add_module(f"halve{level}", halve)
            width *= 2
        self._stack("middle", model.middle_blocks, width)
        for step, count in enumerate(model.decoder_blocks):
            level = self.stages - 1 - step
            double = nn.Conv2d(width, 2 * width, 1, bias=False)
            self.add_module(f"double{level}", double)
            width //= 2
            self._stack(f"decoder{level}", count, width)
        self.last = nn.Conv2d(width, out_channels, 3, padding=1)

    def _stack(self, name, count, width):
        self.counts[name] = count
        for index in range(count):
            self.add_module(f"{name}_{index}", NAFBlock(width))

    def _apply_stack(self, name, y):
        for index in range(self.counts[name]):
            y = getattr(self, f"{name}_{index}")(y)
        return y

    def forward(self, x):
        y, kept = self.first(_pad_to_multiple(x, 2**self.stages)), []
        for level in range(self.stages):
            y = self._apply_stack(f"encoder{level}", y)
            kept.append(y)
            y = getattr(self, f"halve{level}")(y)
        y = self._apply_stack("middle", y)
        for level in reversed(range(self.stages)):
            y = functional.pixel_shuffle(getattr(self, f"double{level}")(y), 2)
            y = self._apply_stack(f"decoder{level}", y + kept[level])
        y = self.last(y)[:, :, : x.shape[2], : x.shape[3]]
        return _centre(x) + y


class RestormerBlock(nn.Module):
    def __init__(self, width, heads, expansion):
        super().__init__()
        hidden = int(width * expansion)
        self.norm1 = ChannelLayerNorm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.qkv_depthwise = nn.Conv2d(
            3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False
        )
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.attention_out = nn.Conv2d(width, width, 1, bias=False)
        self.norm2 = ChannelLayerNorm(width)
        self.hidden = nn.Conv2d(width, 2 * hidden, 1, bias=False)
        self.hidden_depthwise = nn.Conv2d(
            2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False
        )
        self.hidden_out = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x):
        n, c, h, w = x.shape
        heads = self.temperature.shape[0]
        qkv = self.qkv_depthwise(self.qkv(self.norm1(x)))
        query, key, value = (
            part.reshape(n, heads, c // heads, h * w) for part in qkv.chunk(3, 1)
        )
        query = functional.normalize(query, dim=-1)
        key = functional.normalize(key, dim=-1)
        weight = (query @ key.transpose(-1, -2)) * self.temperature
        y = weight.softmax(-1) @ value
        x = x + self.attention_out(y.reshape(n, c, h, w))
        first, second = self.hidden_depthwise(self.hidden(self.norm2(x))).chunk(2, 1)
        return x + self.hidden_out(functional.gelu(first) * second)


class Restormer(nn.Module):
    def __init__(self, model: models.Restormer, out_channels: int = 1):
        super().__init__()
        width, self.scales = model.width, len(model.blocks)
        self.counts, last = {}, self.scales - 1

        def conv(name, into, out, size=3):
            layer = nn.Conv2d(into, out, size, padding=size // 2, bias=False)
            self.add_module(name, layer)

        def stack(name, count, features, heads):
            self.counts[name] = count
            for index in range(count):
                block = RestormerBlock(features, heads, model.expansion)
                self.add_module(f"{name}_{index}", block)

        conv("first", model.channels, width)
        for level in range(last):
            features = width << level
            blocks, heads = model.blocks[level], model.heads[level]
            stack(f"encoder{level}", blocks, features, heads)
            conv(f"halve{level}", features, features // 2)
            conv(f"double{level}", 2 * features, 4 * features)
            if level:
                conv(f"join{level}", 2 * features, features, 1)
            stack(f"decoder{level}", blocks, features if level else 2 * width, heads)
        stack("middle", model.blocks[last], width << last, model.heads[last])
        stack("refinement", model.refinement_blocks, 2 * width, model.heads[0])
        conv("last", 2 * width, out_channels)

    def _apply_stack(self, name, y):
        for index in range(self.counts[name]):
            y = getattr(self, f"{name}_{index}")(y)
        return y

    def forward(self, x):
        last = self.scales - 1
        y, kept = self.first(_pad_to_multiple(x, 2**last)), []
        for level in range(last):
            y = self._apply_stack(f"encoder{level}", y)
            kept.append(y)
            y = functional.pixel_unshuffle(getattr(self, f"halve{level}")(y), 2)
        y = self._apply_stack("middle", y)
        for level in reversed(range(last)):
            y = functional.pixel_shuffle(getattr(self, f"double{level}")(y), 2)
            y = torch.cat([y, kept[level]], 1)
            if level:
                y = getattr(self, f"join{level}")(y)
            y = self._apply_stack(f"decoder{level}", y)
        y = self.last(self._apply_stack("refinement", y))
        return _centre(x) + y[:, :, : x.shape[2], : x.shape[3]]


TWINS = {
    models.CNN10: CNN10,
    models.DnCNN: DnCNN,
    models.NAFNet: NAFNet,
    models.REDCNN: REDCNN,
    models.Restormer: Restormer,
    models.UNet: UNet,
}

"""The classifiers as plain PyTorch modules, written from the papers.

Keys of their `state_dict` are those of published weights: torchvision's for ImageNet
networks, akamaster/pytorch_resnet_cifar10's for CIFAR ResNets (whose projections are
`shortcut.0` and `shortcut.1`), timm's for EfficientNet-Lite. All return logits and the
features that ours return. Dropout is an identity, so that train mode is that of batch
normalisation alone. Needs PyTorch (requirements-oracles.txt): import it where it is
known to be there.
"""

import re
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from acq import models


def create_twin(network: Any, seed: int = 0, channels: int = 3) -> nn.Module:
    """Returns the PyTorch form of `network`, in eval, no weight at its initial value.

    Kernels keep PyTorch's scale; BatchNorm's parameters and running statistics are
    drawn around 1 and 0, its variances above 0.5.
    """
    twin = TWINS[type(network)](network, channels)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(twin.state_dict().items()):
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=rng)
            if value.ndim > 1:
                value.copy_(drawn * (2 / value[0].numel()) ** 0.5)
            elif name.endswith("running_var"):
                value.copy_(0.5 + drawn.abs())
            elif name.endswith("weight"):
                value.copy_(1 + 0.2 * drawn)
            else:
                value.copy_(0.2 * drawn)
    return twin.eval()


def to_torch(x: Any) -> torch.Tensor:
    """NHWC as NCHW."""
    return torch.tensor(np.array(x)).permute(0, 3, 1, 2)


def from_torch(x: torch.Tensor) -> np.ndarray:
    """NCHW as NHWC; other ranks as they are."""
    x = x.detach()
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy()


def variables_of(twin: nn.Module) -> dict[str, Any]:
    """Returns the weights of `twin` as our tree of variables."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for path, module in twin.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            continue
        ours = _our_path(twin, path)
        if isinstance(module, nn.Conv2d):
            _put(variables["params"], ours, kernel=module.weight.permute(2, 3, 1, 0))
        elif isinstance(module, nn.Linear):
            _put(variables["params"], ours, kernel=module.weight.T)
        else:
            _put(variables["params"], ours, scale=module.weight)
            statistics = {"mean": module.running_mean, "var": module.running_var}
            _put(variables["batch_stats"], ours, **statistics)
        if module.bias is not None:
            _put(variables["params"], ours, bias=module.bias)
    return variables


def _put(tree: dict[str, Any], path: str, **leaves: torch.Tensor) -> None:
    for name in path.split("/"):
        tree = tree.setdefault(name, {})
    tree |= {name: leaf.detach().numpy().copy() for name, leaf in leaves.items()}


def _our_path(twin: nn.Module, path: str) -> str:
    if isinstance(twin, VGG):
        return path.replace(".", "_")
    if isinstance(twin, MobileNetV2):
        return _our_mobilenet_path(twin, path)
    if isinstance(twin, EfficientNetLite):
        return _our_efficientnet_path(twin, path)
    path = re.sub(r"^(layer\d)\.(\d+)\.", r"\1_\2/", path)
    for theirs in ("downsample", "shortcut"):
        path = path.replace(f"{theirs}.0", "downsample_conv")
        path = path.replace(f"{theirs}.1", "downsample_bn")
    return path


def _our_mobilenet_path(twin: nn.Module, path: str) -> str:
    first, *rest = path.split(".")
    if first == "classifier":
        return first
    block = f"{first}_{rest.pop(0)}"
    if rest[0] != "conv":
        return f"{block}/{('conv', 'bn')[int(rest[0])]}"
    # What has weights in a block, in order; the first block lacks the expansion.
    inside = twin.get_submodule(path.removesuffix("." + ".".join(rest[1:])))
    names = [
        name
        for name, module in inside.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    ours = [
        f"{kind}_{part}"
        for part in ("expand", "depthwise", "project")
        for kind in ("conv", "bn")
    ][-len(names) :]
    return f"{block}/{ours[names.index('.'.join(rest[1:]))]}"


def _our_efficientnet_path(twin: nn.Module, path: str) -> str:
    outer = {
        "conv_stem": "features_0/conv",
        "bn1": "features_0/bn",
        "conv_head": f"features_{len(list(twin.flat_blocks())) + 1}/conv",
        "bn2": f"features_{len(list(twin.flat_blocks())) + 1}/bn",
        "classifier": "classifier",
    }
    if path in outer:
        return outer[path]
    _, stage, block, part = path.split(".")
    inside = twin.get_submodule(f"blocks.{stage}.{block}")
    number = list(twin.flat_blocks()).index(inside) + 1
    return f"features_{number}/{inside.ours[part]}"


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck, and a shortcut called `shortcut_name`."""

    def __init__(self, channels, convs, shortcut_name, shortcut):
        super().__init__()
        self.count = len(convs)
        for index, (features, size, strides) in enumerate(convs, 1):
            conv = nn.Conv2d(channels, features, size, strides, size // 2, bias=False)
            self.add_module(f"conv{index}", conv)
            self.add_module(f"bn{index}", nn.BatchNorm2d(features))
            channels = features
        self.shortcut_name = shortcut_name
        self.add_module(shortcut_name, shortcut)

    def forward(self, x):
        y = x
        for index in range(1, self.count + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            if index < self.count:
                y = torch.relu(y)
        return torch.relu(y + getattr(self, self.shortcut_name)(x))


class ZeroPad(nn.Module):
    """Every other pixel, and as many channels of zeros before as behind."""

    def __init__(self, missing):
        super().__init__()
        self.missing = missing

    def forward(self, x):
        half = self.missing // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


def _projection(channels, features, strides):
    if strides == 1 and channels == features:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(channels, features, 1, strides, bias=False), nn.BatchNorm2d(features)
    )


class CifarResNet(nn.Module):
    def __init__(self, network: models.CifarResNet, channels: int):
        super().__init__()
        width = network.width
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage in range(3):
            blocks = []
            features = width * 2**stage
            for index in range((network.depth - 2) // 6):
                channels = features // 2 if stage and not index else features
                strides = features // channels
                shortcut = _projection(channels, features, strides)
                if strides == 2 and network.shortcut == "zero_pad":
                    shortcut = ZeroPad(features - channels)
                convs = [(features, 3, strides), (features, 3, 1)]
                blocks.append(ResidualBlock(channels, convs, "shortcut", shortcut))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(4 * width, network.classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3))), x


class ResNet(nn.Module):
    def __init__(self, network: models.ResNet, channels: int):
        super().__init__()
        width = network.width
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = len(network.stage_sizes)
        channels = width
        for stage, size in enumerate(network.stage_sizes):
            inside = width * 2**stage
            features = inside * (4 if network.bottleneck else 1)
            blocks = []
            for index in range(size):
                strides = 2 if stage and not index else 1
                first, second = strides, 1
                if network.bottleneck and not network.stride_in_first:
                    first, second = second, first
                convs = [(inside, 3, first), (inside, 3, second)]
                if network.bottleneck:
                    convs = [(inside, 1, first), (inside, 3, second), (features, 1, 1)]
                shortcut = _projection(channels, features, strides)
                blocks.append(ResidualBlock(channels, convs, "downsample", shortcut))
                channels = features
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, network.classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3))), x


def _conv_norm_activation(channels, features, size, strides=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(
            channels, features, size, strides, size // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(features),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    def __init__(self, channels, features, expansion, strides):
        super().__init__()
        inside = channels * expansion
        expand = [_conv_norm_activation(channels, inside, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_norm_activation(inside, inside, 3, strides, groups=inside),
            nn.Conv2d(inside, features, 1, bias=False),
            nn.BatchNorm2d(features),
        )
        self.has_shortcut = strides == 1 and channels == features

    def forward(self, x):
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, network: models.MobileNetV2, channels: int):
        super().__init__()

        def scaled(count):
            count *= network.width_multiplier
            rounded = max(8, int(count + 4) // 8 * 8)
            return rounded + 8 if rounded < 0.9 * count else rounded

        features = [_conv_norm_activation(channels, scaled(32), 3, 2)]
        channels = scaled(32)
        for expansion, width, blocks, strides in network.stages:
            for index in range(blocks):
                features.append(
                    InvertedResidual(
                        channels, scaled(width), expansion, 1 if index else strides
                    )
                )
                channels = scaled(width)
        head = max(1280, scaled(1280))
        features.append(_conv_norm_activation(channels, head, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(head, network.classes))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.mean((2, 3))), x


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding "SAME", added as an image of its own."""

    def forward(self, x):
        (size, _), (strides, _) = self.kernel_size, self.stride
        # functional.pad takes the last axis first: left, right, top, bottom.
        zeros = []
        for side in (x.shape[3], x.shape[2]):
            out = -(-side // strides)
            total = max((out - 1) * strides + size - side, 0)
            zeros += [total // 2, total - total // 2]
        return self._conv_forward(functional.pad(x, zeros), self.weight, self.bias)


def _lite_norm(features):
    return nn.BatchNorm2d(features, eps=1e-3)


class LiteBlock(nn.Module):
    """timm's DepthwiseSeparableConv (expansion 1) or InvertedResidual."""

    def __init__(self, channels, features, size, expansion, strides):
        super().__init__()
        inside = channels * expansion
        depthwise = SameConv(inside, inside, size, strides, groups=inside, bias=False)
        project = SameConv(inside, features, 1, bias=False)
        if expansion == 1:
            parts = [("conv_dw", depthwise), ("conv_pw", project)]
        else:
            expand = SameConv(channels, inside, 1, bias=False)
            parts = [("conv_pw", expand), ("conv_dw", depthwise)]
            parts.append(("conv_pwl", project))
        self.has_shortcut = strides == 1 and channels == features
        self.ours, self.order = {}, []
        kinds = ("expand", "depthwise", "project")[-len(parts) :]
        for i, ((name, conv), kind) in enumerate(zip(parts, kinds, strict=True), 1):
            self.add_module(name, conv)
            self.add_module(f"bn{i}", _lite_norm(conv.out_channels))
            self.ours |= {name: f"conv_{kind}", f"bn{i}": f"bn_{kind}"}
            self.order.append((name, f"bn{i}"))

    def forward(self, x):
        y = x
        for conv, norm in self.order:
            y = getattr(self, norm)(getattr(self, conv)(y))
            if (conv, norm) != self.order[-1]:
                y = functional.relu6(y)
        return x + y if self.has_shortcut else y


class EfficientNetLite(nn.Module):
    def __init__(self, network: models.EfficientNetLite, channels: int):
        super().__init__()
        self.conv_stem = SameConv(channels, network.stem, 3, 2, bias=False)
        self.bn1 = _lite_norm(network.stem)
        channels, stages = network.stem, []
        for size, expansion, width, blocks, strides in network.stages:
            stage = []
            for index in range(blocks):
                step = 1 if index else strides
                stage.append(LiteBlock(channels, width, size, expansion, step))
                channels = width
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = SameConv(channels, network.head, 1, bias=False)
        self.bn2 = _lite_norm(network.head)
        self.classifier = nn.Linear(network.head, network.classes)

    def flat_blocks(self):
        return (block for stage in self.blocks for block in stage)

    def forward(self, x):
        x = functional.relu6(self.bn1(self.conv_stem(x)))
        x = functional.relu6(self.bn2(self.conv_head(self.blocks(x))))
        return self.classifier(x.mean((2, 3))), x


class VGG(nn.Module):
    def __init__(self, network: models.VGG, channels: int):
        super().__init__()
        features = []
        for stage in network.stages:
            for width in stage:
                features.append(nn.Conv2d(channels, width, 3, padding=1))
                features += [nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            features.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(49 * channels, network.hidden),
            nn.ReLU(),
            nn.Identity(),
            nn.Linear(network.hidden, network.hidden),
            nn.ReLU(),
            nn.Identity(),
            nn.Linear(network.hidden, network.classes),
        )

    def forward(self, x):
        last = self.features[:-1](x)
        x = self.avgpool(self.features[-1](last))
        return self.classifier(x.flatten(1)), last


TWINS = {
    models.CifarResNet: CifarResNet,
    models.EfficientNetLite: EfficientNetLite,
    models.MobileNetV2: MobileNetV2,
    models.ResNet: ResNet,
    models.VGG: VGG,
}

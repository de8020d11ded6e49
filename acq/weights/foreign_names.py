"""Names that other libraries give to the tensors of the networks in `acq.models`.

Names are compared with dots as underscores. So the names of torchvision's ResNets and
VGGs and of the CIFAR ResNets of akamaster/pytorch_resnet_cifar are nearly ours:
`layer1.0.conv1.weight` is `layer1_0/conv1/kernel`. Rules rewrite the others. Each name
is rewritten by the first rule of a naming that matches its start:

    naming                    networks
    PyTorch                   ResNets of torchvision, timm and akamaster, VGG
    torchvision MobileNetV2   Sequentials by number
    timm MobileNetV2          mobilenetv2_100: stages of blocks
    timm EfficientNet         tf_efficientnet_lite0: stages of blocks
    EfficientNet-PyTorch      EfficientNet-Lite0: blocks in one list, all names with _
    timm VGG                  vgg16_bn: dense layers as convolutions
    pytorchcv ResNet          of CIFAR and ImageNet: resnet20_cifar10, resnet18
    pytorchcv MobileNetV2     mobilenetv2b_w1; mobilenetv2_w1 has one more convolution
    pytorchcv VGG             bn_vgg16b; bn_vgg16 with biases of zero
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

HEADS = ("linear", "fc", "classifier")
"""Names of a network's last dense layer, here and elsewhere."""

_Rewrite = str | Callable[[re.Match[str]], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
    """Rules from the start of a foreign name to the start of ours.

    Attributes:
      rules: Patterns and replacements; HEAD stands for our last dense layer.
      lacks_biases: Whether renamed convolutions may lack a bias, which is then zero.
    """

    rules: tuple[tuple[str, _Rewrite], ...]
    lacks_biases: bool = False

    def rewrite(self, name: str, head: str) -> str:
        """Returns our name of a tensor, with dots for slashes; `name` if no rule fits.

        Args:
          name: In the file.
          head: Name of our last dense layer.
        """
        for pattern, replacement in self.rules:
            new, count = re.subn(pattern, replacement, name, count=1)
            if count:
                return new.replace("HEAD", head)
        return name


def _residual_module(match: re.Match[str]) -> str:
    """Returns torchvision's name of a module in a residual block."""
    kind, part = match["kind"], match["part"]
    if part == "identity_conv":
        module = f"downsample_{kind}"
    else:
        module = part.removeprefix("body.").replace("conv", kind)
    return f"layer{match['stage']}.{int(match['unit']) - 1}.{module}."


def _vgg_module(match: re.Match[str]) -> str:
    """Returns torchvision's name of a convolution of VGG16 or its normalisation."""
    # Each convolution counts three (with its normalisation and ReLU), each pool one.
    sizes = [3 * blocks + 1 for blocks in (2, 2, 3, 3, 3)]
    starts = [0, *itertools.accumulate(sizes)]
    stage, unit = int(match["stage"]), int(match["unit"])
    if not 1 <= stage <= len(sizes):
        return match[0]
    number = starts[stage - 1] + 3 * (unit - 1) + (match["kind"] == "bn")
    return f"features.{number}."


def _stages(*sizes: int, first: int) -> Callable[[re.Match[str]], str]:
    """Returns a rewrite that numbers the blocks of all stages from 1.

    Args:
      *sizes: Blocks of each stage.
      first: First number of stages and blocks in the foreign name.
    """
    starts = [1, *itertools.accumulate(sizes, initial=1)][1:]

    def rewrite(match: re.Match[str]) -> str:
        stage, block = int(match["stage"]) - first, int(match["block"]) - first
        if not 0 <= stage < len(sizes):
            return match[0]
        part = match["part"]
        # The first block does not expand, so its parts have other numbers.
        kinds = _FIRST_PARTS if stage == block == 0 else _PARTS
        return f"features.{starts[stage] + block}.{kinds.get(part, part)}."

    return rewrite


_PARTS = {
    **{"conv_pw": "conv_expand", "bn1": "bn_expand"},
    **{"conv_dw": "conv_depthwise", "bn2": "bn_depthwise"},
    **{"conv_pwl": "conv_project", "bn3": "bn_project"},
    **{"conv1.conv": "conv_expand", "conv1.bn": "bn_expand"},
    **{"conv2.conv": "conv_depthwise", "conv2.bn": "bn_depthwise"},
    **{"conv3.conv": "conv_project", "conv3.bn": "bn_project"},
}
_FIRST_PARTS = {
    **_PARTS,
    **{"conv_dw": "conv_depthwise", "bn1": "bn_depthwise"},
    **{"conv_pw": "conv_project", "bn2": "bn_project"},
}


def _listed_block(match: re.Match[str]) -> str:
    """Returns our name of a module in a block of EfficientNet-PyTorch."""
    return f"features.{int(match['block']) + 1}.{_LISTED_PARTS[match['part']]}."


_LISTED_PARTS = {
    **{"_expand_conv": "conv_expand", "_bn0": "bn_expand"},
    **{"_depthwise_conv": "conv_depthwise", "_bn1": "bn_depthwise"},
    **{"_project_conv": "conv_project", "_bn2": "bn_project"},
}

NAMINGS: Mapping[str, Naming] = MappingProxyType(
    {
        "PyTorch": Naming(
            rules=(
                (
                    r"^(layer\d+\.\d+)\.(downsample|shortcut)\.0\.",
                    r"\1.downsample_conv.",
                ),
                (r"^(layer\d+\.\d+)\.(downsample|shortcut)\.1\.", r"\1.downsample_bn."),
                (r"^(fc|linear)\.", "HEAD."),
            )
        ),
        "torchvision MobileNetV2": Naming(
            rules=(
                (r"^features\.1\.conv\.0\.0\.", "features.1.conv_depthwise."),
                (r"^features\.1\.conv\.0\.1\.", "features.1.bn_depthwise."),
                (r"^features\.1\.conv\.1\.", "features.1.conv_project."),
                (r"^features\.1\.conv\.2\.", "features.1.bn_project."),
                (r"^features\.(\d+)\.conv\.0\.0\.", r"features.\1.conv_expand."),
                (r"^features\.(\d+)\.conv\.0\.1\.", r"features.\1.bn_expand."),
                (r"^features\.(\d+)\.conv\.1\.0\.", r"features.\1.conv_depthwise."),
                (r"^features\.(\d+)\.conv\.1\.1\.", r"features.\1.bn_depthwise."),
                (r"^features\.(\d+)\.conv\.2\.", r"features.\1.conv_project."),
                (r"^features\.(\d+)\.conv\.3\.", r"features.\1.bn_project."),
                (r"^features\.(\d+)\.0\.", r"features.\1.conv."),
                (r"^features\.(\d+)\.1\.", r"features.\1.bn."),
                (r"^classifier\.1\.", "HEAD."),
            )
        ),
        "timm MobileNetV2": Naming(
            rules=(
                (r"^conv_stem\.", "features.0.conv."),
                (r"^bn1\.", "features.0.bn."),
                (
                    r"^blocks\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<part>\w+)\.",
                    _stages(1, 2, 3, 4, 3, 3, 1, first=0),
                ),
                (r"^conv_head\.", "features.18.conv."),
                (r"^bn2\.", "features.18.bn."),
            )
        ),
        "timm EfficientNet": Naming(
            rules=(
                (r"^conv_stem\.", "features.0.conv."),
                (r"^bn1\.", "features.0.bn."),
                (
                    r"^blocks\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<part>\w+)\.",
                    _stages(1, 2, 2, 3, 3, 4, 1, first=0),
                ),
                (r"^conv_head\.", "features.17.conv."),
                (r"^bn2\.", "features.17.bn."),
            )
        ),
        "EfficientNet-PyTorch": Naming(
            rules=(
                (r"^_conv_stem\.", "features.0.conv."),
                (r"^_bn0\.", "features.0.bn."),
                (
                    rf"^_blocks\.(?P<block>\d+)\.(?P<part>{'|'.join(_LISTED_PARTS)})\.",
                    _listed_block,
                ),
                (r"^_conv_head\.", "features.17.conv."),
                (r"^_bn1\.", "features.17.bn."),
                (r"^_fc\.", "HEAD."),
            )
        ),
        "timm VGG": Naming(
            rules=(
                (r"^pre_logits\.fc1\.", "classifier.0."),
                (r"^pre_logits\.fc2\.", "classifier.3."),
                (r"^head\.fc\.", "classifier.6."),
            )
        ),
        "pytorchcv ResNet": Naming(
            rules=(
                (r"^features\.init_block\.(conv\.)?bn\.", "bn1."),
                (r"^features\.init_block\.(conv\.)?conv\.", "conv1."),
                (
                    r"^features\.stage(?P<stage>\d+)\.unit(?P<unit>\d+)\.(?P<part>"
                    r"body\.conv\d+|identity_conv)\.(?P<kind>conv|bn)\.",
                    _residual_module,
                ),
                (r"^output\.", "HEAD."),
            )
        ),
        "pytorchcv MobileNetV2": Naming(
            rules=(
                (r"^features\.init_block\.", "features.0."),
                (r"^features\.final_block\.", "features.18."),
                (
                    r"^features\.stage(?P<stage>\d+)\.unit(?P<block>\d+)\."
                    r"(?P<part>conv\d+\.(conv|bn))\.",
                    _stages(1, 2, 3, 7, 4, first=1),
                ),
                (r"^output\.", "HEAD."),
            ),
            lacks_biases=True,
        ),
        "pytorchcv VGG": Naming(
            rules=(
                (
                    r"^features\.stage(?P<stage>\d+)\.unit(?P<unit>\d+)\."
                    r"(?P<kind>conv|bn)\.",
                    _vgg_module,
                ),
                (r"^output\.fc1\.fc\.", "classifier.0."),
                (r"^output\.fc2\.fc\.", "classifier.3."),
                (r"^output\.fc3\.", "classifier.6."),
            ),
            lacks_biases=True,
        ),
    }
)

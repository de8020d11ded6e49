"""ACQ on a CIFAR-10 ResNet, W4A4, from your pretrained weights, without images.

  python launch.py --config configs/acq_r20_cifar10.py \
      --config.teacher.weights=FILE --config.eval.path=NPZ

FILE holds weights of a CIFAR ResNet (PyTorch's .th or .pth, safetensors or .npz);
`--config.teacher.depth` picks 20, 32, 44 or 56. NPZ holds `images`, uint8 (n, 32, 32,
3), and `labels`; it is optional and used only to evaluate. `--task evaluate` measures
the float teacher's accuracy. `--config.generator.shift` is the largest shift of the
training images, or their padding before the crop, in pixels. 4 is usual for CIFAR. Give
0 if the images were not shifted.

Variants, joined by commas:

- `acq` (default); `gdfq`: all terms of ACQ off; `center`, `pair`, `consistency`: one of
  them on;
- `published`: GDFQ's losses, quantizer and optimisers. Name it first: `published,gdfq`
  is GDFQ itself;
- `w3a3`, `w4a4`, `w5a5`, `w6a6`, `w8a8`: bits of weights and activations;
- `integer_ready`: 8 bits where GDFQ leaves floats; `first_last_8`: 8 bits for the first
  and last layer;
- `long`: the published 400 epochs, 4 of them the warm-up, not yet run;
- `smoke`: seconds, with random weights.
"""

from common.config import ConfigDict
from common.recipe import apply_variants
from configs.base_acq import get_base, smoke, variants


def _long(config: ConfigDict) -> None:
    config.generator.warmup = "4 epochs"
    config.generator.learns = True
    config.train.duration = "396 epochs"
    config.train.batch_size = 200
    config.train.evaluate = config.train.save = "10 epochs"


def _smoke(config: ConfigDict) -> None:
    smoke(config)
    config.teacher.name = "resnet8"


VARIANTS = variants(long=_long, smoke=_smoke)


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_base({"name": "resnet20"})
    config.generator.shift = 4  # CIFAR networks are trained on crops padded by 4
    return apply_variants(config, variant, VARIANTS)

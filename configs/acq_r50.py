"""ACQ on an ImageNet ResNet-50, W4A4, without images.

  python launch.py --config configs/acq_r50.py [--config.eval.path=FOLDER]

The teacher is `timm/resnet50.tv_in1k` of the Hugging Face hub. It is downloaded once,
cached, and checked against its published SHA-256. The download has not been tried.
Offline, give --config.teacher.weights=FILE. FOLDER holds one folder of images for each
class, in the order of the classes (ImageNet's validation set). It is used only to
evaluate.

The schedule has 3,200 steps of the generator alone and 9,600 of the student, with 16
samples each. Losses, quantizer, rates and numbers of samples are those of the longer
table of ResNet-20 on CIFAR-10 (docs/acq.md). They were chosen there, where they gain 3
points at W4A4 and 25 at W3A3 on GDFQ's (600 steps), and on EfficientNet-Lite0: 46 to
51 % against 10 at W4A4 after 15 minutes at 128 pixels, `gdfq` 2 to 4 points above ACQ.
Steps were not timed. **The accuracy has not been run yet.** Only the `smoke` variant
and the networks' parity tests have been.

Variants, joined by commas: those of `acq_r20_cifar10`. `published` also has GDFQ's
schedule, 400 epochs of 200 steps, in one loop. `smoke` takes a few steps at 224 pixels
with random weights.
"""

from common.config import ConfigDict
from common.recipe import apply_variants
from configs.base_acq import get_imagenet, published_imagenet, smoke, variants

TEACHER = {
    "name": "resnet50",
    "hub_repo": "timm/resnet50.tv_in1k",
    "hub_file": "model.safetensors",
    "hub_revision": "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
    "hub_sha256": "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
}
VARIANTS = variants(published=published_imagenet, smoke=smoke)


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_imagenet(TEACHER)
    return apply_variants(config, variant, VARIANTS)

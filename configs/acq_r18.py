"""ACQ on an ImageNet ResNet-18, W4A4, without images.

  python launch.py --config configs/acq_r18.py [--config.eval.path=FOLDER]

The teacher is `timm/resnet18.tv_in1k` of the Hugging Face hub. It is downloaded once,
cached, and checked against its published SHA-256. The download has not been tried.
Offline, give --config.teacher.weights=FILE. FOLDER holds one folder of images for each
class, in the order of the classes (ImageNet's validation set). It is used only to
evaluate.

The schedule has 3,200 steps of the generator alone and 9,600 of the student, with 16
samples each. On one CPU core a step takes about 5 s of either (without ACQ's terms),
and 4 GB, so the whole takes 18 hours. Losses, quantizer, rates and numbers of samples
are those of the longer table of ResNet-20 on CIFAR-10 (docs/acq.md). They were chosen
there, where they gain 3 points at W4A4 and 25 at W3A3 on GDFQ's (600 steps), and on
EfficientNet-Lite0: 46 to 51 % against 10 at W4A4 after 15 minutes at 128 pixels,
`gdfq` 2 to 4 points above ACQ. **Its accuracy has not been run yet.** Only the `smoke`
variant, a few steps with random weights, and the networks' parity tests have been.

Variants, joined by commas: those of `acq_r20_cifar10`. `published` also has GDFQ's
schedule, 400 epochs of 200 steps, in one loop. `smoke` takes a few steps at 224 pixels
with random weights.
"""

from common.config import ConfigDict
from common.recipe import apply_variants
from configs.base_acq import get_imagenet, published_imagenet, smoke, variants

TEACHER = {
    "name": "resnet18",
    "hub_repo": "timm/resnet18.tv_in1k",
    "hub_file": "model.safetensors",
    "hub_revision": "bbd144b3e5565108aad885f145491d11bc6ce807",
    "hub_sha256": "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
}
VARIANTS = variants(published=published_imagenet, smoke=smoke)


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_imagenet(TEACHER)
    return apply_variants(config, variant, VARIANTS)

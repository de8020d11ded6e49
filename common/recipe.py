"""Variants of recipes: named changes of a config."""

from collections.abc import Callable, Mapping

from common.config import ConfigDict
from common.errors import UserError

Variants = Mapping[str, Callable[[ConfigDict], None]]


def apply_variants(config: ConfigDict, names: str, variants: Variants) -> ConfigDict:
    """Changes `config` by each variant named, from left to right.

    Args:
      config: the config of the recipe without variants.
      names: variants joined by commas; "" or "default" for none.
      variants: functions that change a config in place, by name.

    Returns:
      The same config.

    Raises:
      UserError: a name is not a variant of this recipe.
    """
    for name in filter(None, names.split(",")):
        if name == "default":
            continue
        if name not in variants:
            raise UserError(
                f"--config: no variant {name!r} here, accepted: {', '.join(variants)} "
                "(several joined by commas)"
            )
        variants[name](config)
    return config

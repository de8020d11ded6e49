"""Names for the types that cross file boundaries."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax

PyTree: TypeAlias = Any
Batch: TypeAlias = Mapping[str, Any]
Metrics: TypeAlias = Mapping[str, jax.Array]

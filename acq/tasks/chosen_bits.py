"""Holds the bits that a budget chose in `workdir/bits.json`, for a run that goes on.

Other devices may round the sensitivities another way, and a student that goes on with
other bits would be another student.
"""

import json
from pathlib import Path
from typing import Any

from absl import logging

from acq.classifier import Classifier
from acq.kernels.grid import MAX_BITS, MIN_BITS
from acq.quantization.bit_budget import choose_bits_within, with_weight_bits
from acq.quantization.settings import QuantizationSettings
from common.devices import is_first_process
from common.errors import UserError
from common.files import write_atomically
from common.workdir import anything_computed

NAME = "bits.json"


def hold_bits(
    settings: QuantizationSettings, teacher: Classifier, workdir: Path
) -> QuantizationSettings:
    """Returns the settings with the bits of the run's budget, if it has one.

    The file holds `weights`, {layer: bits}, and `sensitivity`, {layer: nats at these
    bits}, of the layers whose bits were chosen. All processes call this, after the
    run's config is written or checked.

    Args:
      settings: of the quantization.
      teacher: the float network.
      workdir: of the run.

    Raises:
      UserError: the file is damaged, or a sensitivity is not finite.
    """
    if not settings.quantizer.budget_mb:
        return settings
    path = workdir / NAME
    if path.exists() and anything_computed(workdir):
        bits = _read(path)
        logging.info("bits of the weights, chosen before: %s", bits)
        return with_weight_bits(settings, bits)
    chosen = choose_bits_within(settings, teacher)
    if is_first_process():
        content = {"weights": chosen.bits, "sensitivity": chosen.sensitivity}
        write_atomically(path, json.dumps(content, indent=2) + "\n")
    return with_weight_bits(settings, chosen.bits)


def _read(path: Path) -> dict[str, int]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    bits = found.get("weights") if isinstance(found, dict) else None
    if not isinstance(bits, dict) or not all(
        type(n) is int and MIN_BITS <= n <= MAX_BITS for n in bits.values()
    ):
        raise UserError(
            f"{path}: damaged, or not the bits of a run of this software. Give another "
            "--workdir."
        )
    return bits

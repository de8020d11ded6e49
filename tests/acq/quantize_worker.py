"""A process of `test_quantize_processes.py`: a run of its config."""

import json
import sys
from pathlib import Path

from acq.tasks.quantize import quantize_run
from common import devices
from tests.acq.quantize_config import make_config


def main(coordinator, processes, process, folder):
    devices.start_processes(coordinator, int(processes), int(process))
    config = make_config(Path(folder))
    # Its steps are the same beside the student and alone: no need to compile both.
    config.generator.learns, config.generator.warmup = True, ""
    config.quantizer.budget_mb = 0.0035  # the first process chooses for all
    results = quantize_run(config, Path(folder, "run"))
    kept = (
        "quantized",
        "baselines",
        "samples",
        "agreement_on_samples",
        "n",
        "layer_bits",
    )
    print(json.dumps({name: results[name] for name in kept}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A process of `test_compare_processes.py`: a comparison of one kind of pairs."""

import json
import sys
from pathlib import Path

from common import devices
from configs import quickstart
from ipv2.tasks.compare import compare


def main(coordinator, processes, process, folder):
    devices.start_processes(coordinator, int(processes), int(process))
    config = quickstart.get_config("smoke")
    config.data.cache = str(Path(folder, "cache"))
    config.compare.pairs = ("none",)
    config.train.duration = "2 steps"
    config.evaluate.filters = ()
    compare(config, Path(folder, "run"))
    # What this process would go on with, if it compared again.
    print(json.dumps(json.loads(Path(folder, "run", "results.json").read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])

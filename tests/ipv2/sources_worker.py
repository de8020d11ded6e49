"""One of two processes that open the same data, which neither has built before."""

import json
import sys
from pathlib import Path

from common import devices
from ipv2.tasks.sources import open_sources
from tests.ipv2.pair_folders import config_of


def main(coordinator, processes, process, folder):
    devices.start_processes(coordinator, int(processes), int(process))
    sources = open_sources(config_of(Path(folder)))
    first = [source[0]["patient"].decode() for source in sources[1:4] if len(source)]
    print(json.dumps([sources.data, first]))


if __name__ == "__main__":
    main(*sys.argv[1:])

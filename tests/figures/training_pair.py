"""The picture of docs/denoising.md: a training pair as it is, and as IPv2 makes it.

    python -m tests.figures.training_pair [--cache runs/datasets]

Writes `docs/training_pair.png`: a slice of the sample CT (fetched if need be) with a
simulated breath and 2 % of the dose, the input that IPv2 makes of it, and the target.
About a minute on two CPU cores.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from common.dataset import load_split
from ipv2.datasets.simulated_pairs import SimulatedPairs, simulated_pairs_config
from ipv2.purification.purify import PurifyParams, purify
from ipv2.tasks.figure import save_comparison
from ipv2.tasks.sources import LUNG_SLICES

RECORD = 12  # of the training slices: large lungs, the heart beside them
INSET = (195, 305, 96)  # (top row, left column, side): the heart's edge, vessels
LOW, PURIFIED, TARGET = "input as it is", "input by IPv2", "target"


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/training_pair.png"))
    parser.add_argument("--cache", type=Path, default=Path("runs/datasets"))
    options = parser.parse_args()
    config = simulated_pairs_config("sample_ct", slices=LUNG_SLICES)
    builder = SimulatedPairs(config=config, data_dir=options.cache)
    record = load_split(builder, "train")[RECORD]
    lq, gt = (np.asarray(record[key], np.float32) for key in ("lq", "gt"))
    made = purify(
        jax.random.key(0),
        jnp.asarray(lq),
        jnp.asarray(gt),
        record["spacing_mm"],
        PurifyParams(),
    )
    save_comparison(
        options.output,
        {LOW: lq, PURIFIED: np.asarray(made.lq_bar), TARGET: gt},
        captions={
            LOW: "2 % of the dose",
            PURIFIED: "the lung of the target, 2 % of its dose",
            TARGET: "normal dose, another breath",
        },
        inset=INSET,
        reference=TARGET,
        title="CT: TCIA Lung-PET-CT-Dx, A0001, CC BY 4.0; dose and breath simulated",
    )


if __name__ == "__main__":
    main()

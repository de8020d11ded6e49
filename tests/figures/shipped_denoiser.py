"""The picture of the network that ships, on a slice that it has not seen.

    python -m tests.figures.shipped_denoiser [--cache runs/datasets] [--dose 0.1]

Writes `docs/shipped_denoiser.png`: a validation slice of the sample CT (fetched if need
be) at a simulated low dose, total variation with the strength that is best on the
validation slices at 2 and at 10 % of the dose, the network, and the truth. About a
minute on two CPU cores.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ipv2
from common.dataset import load_split
from ipv2.datasets.simulated_pairs import SimulatedPairs, simulated_pairs_config
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.measures.filters import FILTERS, noise_sd_hu
from ipv2.purification.purify import regions
from ipv2.tasks.figure import save_comparison
from ipv2.tasks.sources import LUNG_SLICES

INSET = (195, 305, 96)  # (top row, left column, side)
# By dose: multiples of the noise.
STRENGTH = {0.02: 0.75, 0.1: 0.25}
INPUT, FILTERED, NETWORK, TRUTH = "input", "total variation", "network", "truth"


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("docs/shipped_denoiser.png")
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/datasets"))
    parser.add_argument("--dose", type=float, choices=STRENGTH, default=0.02)
    options = parser.parse_args()
    config = simulated_pairs_config("sample_ct", slices=LUNG_SLICES)
    builder = SimulatedPairs(config=config, data_dir=options.cache)
    record = load_split(builder, "val")[0]
    truth = np.asarray(record["truth"], np.float32)
    params = DoseParams(dose=options.dose)
    low = simulate_low_dose(jax.random.key(0), truth, record["spacing_mm"], params)
    low = np.clip(np.asarray(low), -1024, 3071)
    noise_hu = noise_sd_hu(low, regions(jnp.asarray(truth)).body)[None]
    filtered = FILTERS["tv"].apply(low[None], STRENGTH[options.dose], noise_hu)[0]
    save_comparison(
        options.output,
        {
            INPUT: low,
            FILTERED: np.asarray(filtered),
            NETWORK: ipv2.load_denoiser().denoise(low),
            TRUTH: truth,
        },
        captions={
            INPUT: f"{options.dose:.0%} of the dose",
            FILTERED: f"{STRENGTH[options.dose]} x noise",
            NETWORK: "weights/unet",
            TRUTH: "normal dose, with its noise",
        },
        inset=INSET,
        reference=TRUTH,
        title="CT: TCIA Lung-PET-CT-Dx, A0001, CC BY 4.0; dose simulated",
    )


if __name__ == "__main__":
    main()

"""Times all measures of whole slices, those against a reference and the noise index.

    python -m tests.benchmarks.measures [--slices 64] [--size 512] [--batch 8]
        [--limit SECONDS] [--smoke]

The slices are the phantom's; the input has white noise of 60 HU, the output is the
input blurred by 0.7 pixels. Each measure is compiled for itself, without the time that
this takes; `evaluation.py` compiles them together, which saves what they share. The
total is that of the measures against a reference. CPU seconds are those of all threads:
they tell what the measures cost where other programs take a share of the machine. With
`--limit`, a larger total ends with exit status 1.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.text_table import format_table
from ipv2 import phantom
from ipv2.kernels.smoothing import gaussian
from ipv2.measures.contour import contour_displacement_px
from ipv2.measures.edges import edge_slopes
from ipv2.measures.error_spectrum import error_frequencies
from ipv2.measures.metrics import image_metrics, region_metrics
from ipv2.measures.noise_index import noise_index_hu
from ipv2.measures.perceptual import perceptual_metrics
from ipv2.measures.removed import removed_edges, removed_map
from ipv2.measures.sharpness import edge_rises_mm
from ipv2.measures.tissues import dense_foci_metrics, tissue_metrics
from tests.benchmarks.shared.arguments import create_parser, parse

Batch = Mapping[str, jax.Array]
_NOISE_HU, _BLUR_PX, _WIDTH_MM = 60.0, 0.7, 400.0

AGAINST_REFERENCE: Mapping[str, Callable[[Batch], Any]] = {
    "PSNR, SSIM, RMSE": lambda b: image_metrics(b["output"], b["truth"]),
    "MAE, GMSD, MS-SSIM, VIF": lambda b: perceptual_metrics(b["output"], b["truth"]),
    "regions": lambda b: region_metrics(
        b["output"],
        b["truth"],
        {name: b[name] for name in ("background", "lung", "body")},
        "difference",
    ),
    "tissues": lambda b: tissue_metrics(b["output"], b["truth"], b["lung"]),
    "dense foci": lambda b: dense_foci_metrics(b["output"], b["truth"]),
    "slopes of edges": lambda b: edge_slopes(b["output"], b["truth"], b["lung"]),
    "rises of edges": lambda b: edge_rises_mm(
        b["output"], b["truth"], b["lung"], b["pixel_mm"]
    ),
    "contour": lambda b: contour_displacement_px(b["output"], b["truth"], b["lung"]),
    "error spectrum": lambda b: error_frequencies(
        b["output"] - b["truth"], b["body"], b["pixel_mm"]
    ),
    "what was removed": lambda b: (
        removed_edges(b["input"], b["output"], b["truth"]),
        removed_map(b["input"], b["output"], b["truth"]),
    ),
}
NO_REFERENCE: Mapping[str, Callable[[Batch], Any]] = {
    "noise index": lambda b: noise_index_hu(b["output"]),
}


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the seconds of every measure and their total."""
    parser = create_parser(__doc__)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--size", type=int, default=512, help="pixels of a slice")
    parser.add_argument("--batch", type=int, default=8, help="slices at a time")
    parser.add_argument("--limit", type=float, help="seconds that the total may take")
    smoke = ["--slices=2", "--size=96", "--batch=2"]
    options = parse(parser, command_line, smoke)
    if options.slices % options.batch:
        parser.error("--slices: a multiple of --batch")
    batches = [
        _batch(seed, options.batch, options.size)
        for seed in range(options.slices // options.batch)
    ]
    seconds = {name: _seconds(f, batches) for name, f in AGAINST_REFERENCE.items()}
    total = np.sum(list(seconds.values()), axis=0)
    alone = {name: _seconds(f, batches) for name, f in NO_REFERENCE.items()}
    everything = {**seconds, "against a reference": total, **alone}
    rows = [(name, *map(float, pair)) for name, pair in everything.items()]
    print(
        format_table(
            ["measure", "seconds", "CPU seconds"],
            rows,
            digits=[0, 2, 2],
            title=f"{options.slices} slices of {options.size} x {options.size}",
        )
    )
    if options.limit is not None and total[0] > options.limit:
        raise SystemExit(f"{total[0]:.1f} s; --limit is {options.limit:g} s")


def _seconds(
    measure: Callable[[Batch], Any], batches: Sequence[Batch]
) -> tuple[float, float]:
    """Returns the time and the CPU time of all batches, without compilation."""
    compiled = jax.jit(measure)
    jax.block_until_ready(compiled(batches[0]))
    start, start_cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        jax.block_until_ready(compiled(batch))
    return time.perf_counter() - start, time.process_time() - start_cpu


def _batch(seed: int, count: int, size: int) -> Batch:
    patient = phantom.create_patient(seed)
    breath, _ = phantom.create_breaths(seed)
    positions = phantom.slice_positions(patient, count)
    slices = phantom.render(patient, breath, positions, size=size)
    truth = jnp.asarray(slices.hu, jnp.float32)
    noise = np.random.default_rng(seed).standard_normal(truth.shape)
    noisy = truth + _NOISE_HU * jnp.asarray(noise, jnp.float32)
    body = truth > -300
    lung = jnp.asarray(slices.lung) & (truth < -500)
    return {
        "truth": truth,
        "input": noisy,
        "output": gaussian(noisy, _BLUR_PX),
        "lung": lung,
        "body": body | lung,
        "background": ~(body | lung),
        "pixel_mm": jnp.full(count, _WIDTH_MM / size),
    }


if __name__ == "__main__":
    main()

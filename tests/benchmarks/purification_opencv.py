"""Times masks and blend of 8 pairs of 512 x 512 against OpenCV.

    python -m tests.benchmarks.purification_opencv [VOLUME.npy] [--size 512] [--turns 4]
        [--smoke]

OpenCV takes the published steps on its threads and blends in float32 with its own
functions; "NumPy blend" blends in NumPy, as published. VOLUME.npy is (slices, 512, 512)
in HU; without it the images are an ellipse phantom. The candidates take turns. Prints
medians and ratios.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from ipv2.purification.purify import PurifyParams, purify_v2
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.oracles import purification_opencv as oracle
from tests.oracles.thorax import thorax

RUNS = 6  # of a turn


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = create_parser(__doc__)
    parser.add_argument("volume", nargs="?", help="(slices, h, w) HU, .npy")
    parser.add_argument("--size", type=int, default=512, help="pixels of the phantom")
    parser.add_argument("--turns", type=int, default=4)
    options = parse(parser, command_line, ["--size=64", "--turns=1"])
    cv2.setNumThreads(os.cpu_count() or 1)
    lq, gt = _pairs(options.volume, options.size)
    lq_grey, gt_grey = _grey(lq), _grey(gt)
    off = {"add_noise": "none", "remove_noise": "none"}
    robust = PurifyParams(variant="robust", **off)
    reference = PurifyParams(variant="reference", **off)
    reference_grey = PurifyParams(variant="reference", units="grey", **off)
    rng = jax.random.key(0)

    def run(lq: jax.Array, gt: jax.Array, params: PurifyParams) -> Callable[[], None]:
        return lambda: jax.block_until_ready(purify_v2(rng, lq, gt, 1.0, params))

    lq_d, gt_d = jnp.asarray(lq), jnp.asarray(gt)
    candidates = {
        "OpenCV, float32 OpenCV blend": lambda: _opencv(lq_grey, gt_grey),
        "OpenCV, NumPy blend": lambda: [
            oracle.purify_v2(a, b) for a, b in zip(lq_grey, gt_grey, strict=True)
        ],
        "robust, HU": run(lq_d, gt_d, robust),
        "reference, HU": run(lq_d, gt_d, reference),
        "reference, 8 bit": run(
            jnp.asarray(lq_grey), jnp.asarray(gt_grey), reference_grey
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    # A turn has several runs. The threads of the candidate before spin for a while and
    # slow the first run, which does not count.
    for _ in range(options.turns):
        for name, candidate in candidates.items():
            candidate()
            for _ in range(RUNS):
                start = time.perf_counter()
                candidate()
                seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["OpenCV, float32 OpenCV blend"])
    side = lq.shape[-1]
    print(f"masks + blend, 8 pairs of {side} x {side}, {os.cpu_count()} cores")
    print(f"{options.turns} turns of {RUNS} runs each")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"{name:30s} median {1e3 * middle:7.1f} ms  min {1e3 * min(values):7.1f} ms"
            f"  {base / middle:5.2f} x OpenCV"
        )


def _opencv(lq: np.ndarray, gt: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the oracle's pairs, blended without NumPy temporaries."""
    results = []
    for x, y in zip(lq, gt, strict=True):
        mask = oracle.remove_background(oracle.common_mask(x, y))
        weight = mask.astype(np.float32) * np.float32(1 / 255)
        rest = np.float32(1) - weight
        x, y = x.astype(np.float32), y.astype(np.float32)
        lq_bar = cv2.add(cv2.multiply(weight, y), cv2.multiply(rest, x))
        gt_bar = cv2.add(cv2.multiply(weight, x), cv2.multiply(rest, y))
        # To 8 bits, half to even, as `cv2.imwrite` does.
        results.append((cv2.convertScaleAbs(lq_bar), cv2.convertScaleAbs(gt_bar)))
    return results


def _pairs(path: str | None, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    if path is None:
        clean = thorax(size).hu
        gt = np.stack([np.roll(clean, shift, 0) for shift in range(8)])
    else:
        volume = np.load(path)
        middle = len(volume) // 2
        gt = volume[middle - 4 : middle + 4]
    lq = np.roll(gt, 4, axis=1) + rng.normal(0, 100, gt.shape)
    return lq.astype(np.float32), gt.astype(np.float32)


def _grey(hu: np.ndarray) -> np.ndarray:
    return np.round(np.clip((hu + 1350) / 1500, 0, 1) * 255).astype(np.uint8)


if __name__ == "__main__":
    main()

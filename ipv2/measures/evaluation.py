"""Evaluation of a denoiser on whole slices: streamed, batched, averaged, in HU."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from common.typing import PyTree
from ipv2.measures.contour import contour_displacement_px
from ipv2.measures.metrics import (
    MIN_REGION_PIXELS,
    REGIONS,
    WINDOWS,
    NoiseMethod,
    image_metrics,
    region_metrics,
)

Slices = Mapping[str, Any]
Denoise = Callable[[PyTree, Array], Array]
Prepare = Callable[[Slices], Slices]

_NOISE_WORDS = {
    "difference": "sd of the difference from the truth, local: its median sd "
    "within 7x7 pixels",
    "local": "median sd within 7x7 pixels of the image itself",
}


def evaluate_slices(
    denoise: Denoise,
    variables: PyTree,
    slices: Iterable[Slices],
    *,
    batch_size: int,
    label: str,
    prepare: Prepare | None = None,
) -> dict[str, Any]:
    """Mean metrics of the input and of the denoised output over all slices.

    Batches are as large as `batch_size`; the last one, and the last before a change of
    image size, is filled up with copies whose numbers are dropped. A slice's numbers
    depend on that slice alone. Slices are read as they are needed, and only numbers
    are kept.

    Args:
      denoise: (variables, `b h w c` HU) -> `b h w` HU, traceable; see
        `denoiser.make_denoise`. Compiled once for each function object and image size:
        keep it, and `prepare`, between evaluations. The three stages are compiled
        apart, so that networks share `prepare`, which takes longest, and the metrics.
      variables: The first argument of `denoise`.
      slices: One mapping a slice, all with the same keys: `lq`, (h, w, c) HU, the slice
        in the middle of c neighbours; `label`, (h, w) HU; `regions`, a mapping of
        `REGIONS` to (h, w) bool; where known, `truth`, (h, w) HU aligned with `lq`, and
        `spacing_mm`, (2,). With `prepare`, whatever that takes. Other keys go to
        `prepare` and are not looked at, so they must be numbers.
      batch_size: Slices at a time.
      label: What the label is, for the results: 'ipv2', 'v1', 'gt'...
      prepare: Maps a stacked batch to one with the keys above, on device, jitted;
        purification, for instance. A batch's filling must not change the other slices:
        random keys belong in `slices`, one each.

    Returns:
      `input` and `output`, each with `psnr_db`, `ssim`, `rmse_hu` by window and
      `regions` by name with `noise_sd_hu`, `bias_hu`, with a known truth
      `local_noise_sd_hu` (see `metrics`), and `n_slices` (those that hold at least
      100 pixels of the region; None in place of numbers if none does), and with a known
      truth `contour_mm`, how far the lungs' outline moved (see `contour`);
      `label`, the reference they were measured against: 'truth' if it is known, else
      `label`; `noise`, how noise was measured; `n_slices`; `windows`. If the truth is
      known, `against_label` repeats `label`, `noise`, `input`, `output` for the label.

    Raises:
      ValueError: If there is no slice, a key is missing, keys change between slices,
        or `batch_size` is below 1.
      FloatingPointError: If the network's output is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")

    collected = []
    for batch, count in _batches(slices, batch_size):
        if prepare is None:
            _check_keys(batch)
        else:
            batch = _prepared(prepare, batch)
        output = _denoised(denoise, variables, batch["lq"])
        measured = jax.device_get(_measure(batch, output))
        measured = jax.tree.map(lambda leaf, count=count: leaf[:count], measured)
        full = measured["label"]["output"]["rmse_hu"]["full"]
        if not np.all(np.isfinite(full)):
            first = int(np.flatnonzero(~np.isfinite(full))[0])
            index = sum(_length(m) for m in collected) + first
            raise FloatingPointError(
                f"slice {index}: the difference of output and label is not finite; "
                "check the checkpoint and that the images hold finite HU"
            )
        collected.append(measured)
    if not collected:
        raise ValueError("there is no slice to evaluate")
    numbers = jax.tree.map(lambda *leaves: np.concatenate(leaves), *collected)

    against_label: dict[str, Any] = {
        "label": label,
        "noise": _NOISE_WORDS["local"],
        **{name: _average(numbers["label"][name]) for name in ("input", "output")},
    }
    results: dict[str, Any] = dict(against_label)
    if "truth" in numbers:
        results = {
            "label": "truth",
            "noise": _NOISE_WORDS["difference"],
            **{name: _average(numbers["truth"][name]) for name in ("input", "output")},
            "against_label": against_label,
        }
    results["n_slices"] = _length(numbers)
    results["windows"] = {
        name: {"center_hu": window.center_hu, "width_hu": window.width_hu}
        for name, window in WINDOWS.items()
    }
    return results


def prepared_slices(
    slices: Iterable[Slices], prepare: Prepare, *, batch_size: int
) -> Iterator[Slices]:
    """Yields every slice as `prepare` makes it, on the host.

    Args:
      slices: as `evaluate_slices` takes them.
      prepare: as there; compiled once for both.
      batch_size: slices at a time.
    """
    for batch, count in _batches(slices, batch_size):
        ready = jax.device_get(_prepared(prepare, batch))
        for i in range(count):
            yield jax.tree.map(lambda leaf, i=i: leaf[i], ready)


@functools.partial(jax.jit, static_argnames="prepare")
def _prepared(prepare: Prepare, batch: Slices) -> Slices:
    return prepare(batch)


@functools.partial(jax.jit, static_argnames="denoise")
def _denoised(denoise: Denoise, variables: PyTree, stack: Array) -> Array:
    return denoise(variables, jnp.asarray(stack, jnp.float32))


@jax.jit
def _measure(batch: Slices, output: Array) -> dict[str, Any]:
    """{reference: {image: metrics of every slice}}."""
    lq = jnp.asarray(batch["lq"][..., batch["lq"].shape[-1] // 2], jnp.float32)
    regions = {name: jnp.stack([batch["regions"][name]] * 2) for name in REGIONS}
    images = jnp.stack([lq, output])
    methods: dict[str, NoiseMethod] = {"label": "local", "truth": "difference"}
    result = {}
    for reference, method in methods.items():
        if reference not in batch:
            continue
        target = jnp.asarray(batch[reference], jnp.float32)
        target = jnp.broadcast_to(target, images.shape)
        both: dict[str, Any] = {
            **image_metrics(images, target),
            "regions": region_metrics(images, target, regions, method),
        }
        if reference == "truth":
            moved_px = contour_displacement_px(images, target, regions["lung"])
            pixel_mm = jnp.sqrt(jnp.prod(batch["spacing_mm"], axis=-1))
            both["contour_mm"] = moved_px * pixel_mm[None]
        result[reference] = {
            name: jax.tree.map(lambda leaf, k=k: leaf[k], both)
            for k, name in enumerate(("input", "output"))
        }
    return result


def _batches(slices: Iterable[Slices], size: int) -> Iterator[tuple[Slices, int]]:
    """Stacked batches of exactly `size` slices of one shape, and how many are real."""
    pending: list[Slices] = []
    signature = keys = None
    for item in slices:
        item = jax.tree.map(np.asarray, dict(item))
        if keys is None:
            keys = jax.tree.structure(item)
        elif jax.tree.structure(item) != keys:
            raise ValueError(
                f"all slices must have the same keys, got {sorted(item)} after others; "
                "evaluate slices with a known truth apart from those without"
            )
        new = [leaf.shape for leaf in jax.tree.leaves(item)]
        if pending and new != signature:
            yield _stack(pending, size), len(pending)
            pending = []
        signature = new
        pending.append(item)
        if len(pending) == size:
            yield _stack(pending, size), size
            pending = []
    if pending:
        yield _stack(pending, size), len(pending)


def _stack(pending: list[Slices], size: int) -> Slices:
    filled = pending + [pending[-1]] * (size - len(pending))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *filled)


def _check_keys(batch: Slices) -> None:
    wanted = {"lq", "label", "regions"} | (
        {"spacing_mm"} if "truth" in batch else set()
    )
    missing = sorted(wanted - set(batch))
    if not missing:
        missing = [f"regions[{n!r}]" for n in REGIONS if n not in batch["regions"]]
    if missing:
        raise ValueError(
            f"slices lack {missing}; got {sorted(batch)}. Give them, or a `prepare` "
            "that makes them"
        )


def _length(numbers: Mapping[str, Any]) -> int:
    return len(numbers["label"]["input"]["rmse_hu"]["full"])


def _average(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Means over slices as Python floats, regions over the slices that hold them."""
    means: dict[str, Any] = {
        metric: {name: float(np.mean(v, dtype=np.float64)) for name, v in by.items()}
        for metric, by in numbers.items()
        if metric not in ("regions", "contour_mm")
    }
    if "contour_mm" in numbers:
        # Slices without a lung have no contour: NaN.
        seen = numbers["contour_mm"][np.isfinite(numbers["contour_mm"])]
        means["contour_mm"] = float(np.mean(seen)) if seen.size else None
    means["regions"] = {}
    for name, region in numbers["regions"].items():
        held = region["pixels"] >= MIN_REGION_PIXELS
        for values in region.values():
            held &= np.isfinite(values)
        means["regions"][name] = {
            key: float(np.mean(region[key][held], dtype=np.float64))
            if held.any()
            else None
            for key in region
            if key != "pixels"
        } | {"n_slices": int(held.sum())}
    return means

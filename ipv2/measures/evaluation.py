"""Evaluates a denoiser on whole slices in HU: streamed, batched, averaged."""

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

_NOISE_DESCRIPTIONS = {
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
    """Returns mean metrics of the input and of the denoised output over all slices.

    All batches have `batch_size` slices. The last one, and the last one before a change
    of image size, is padded with copies whose numbers are dropped. A slice's numbers
    depend on that slice alone. Slices are read as they are needed, and only numbers
    are kept.

    Args:
      denoise: (variables, `b h w c` HU) -> `b h w` HU, traceable; see
        `denoiser.make_denoise`. It is compiled once per function object and image size:
        reuse it, and `prepare`, between evaluations. The three stages are compiled
        separately, so networks share the metrics and `prepare`, which takes longest.
      variables: The first argument of `denoise`.
      slices: One mapping per slice, all with the same keys: `lq`, (h, w, c) HU, the
        slice in the middle of c neighbours; `label`, (h, w) HU; `regions`, a mapping
        from `REGIONS` to (h, w) bool; where the truth is known, `truth`, (h, w) HU
        aligned with `lq`, and `spacing_mm`, (2,). With `prepare`, its input instead.
        Other keys are passed to `prepare`; they must hold numbers.
      batch_size: Slices per batch.
      label: Name of the label in the results: 'ipv2', 'v1', 'gt'...
      prepare: Maps a stacked batch to one with the keys above, on device, jitted;
        purification, for instance. The padding of a batch must not change the other
        slices: put one random key per slice into `slices`.

    Returns:
      `input` and `output`, each with `psnr_db`, `ssim`, `rmse_hu` by window;
      `regions` by name with `noise_sd_hu`, `bias_hu` and `n_slices` (slices with at
      least 100 pixels of the region; without one the numbers are None). With a known
      truth, regions also hold `local_noise_sd_hu` (see `metrics`), and `contour_mm` is
      the distance by which the lungs' outline moved (see `contour`).
      `label`, the reference of these numbers: 'truth' if it is known, else
      `label`; `noise`, how noise was measured; `n_slices`; `windows`. If the truth is
      known, `against_label` repeats `label`, `noise`, `input`, `output` for the label.

    Raises:
      ValueError: There is no slice, a key is missing, keys change between slices,
        or `batch_size` is below 1.
      FloatingPointError: The network's output is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    measured: list[dict[str, Any]] = []
    for batch, count in _batches(slices, batch_size):
        if prepare is None:
            _check_keys(batch)
        else:
            batch = _prepared(prepare, batch)
        output = _denoised(denoise, variables, batch["lq"])
        numbers = jax.device_get(_measure(batch, output))
        numbers = jax.tree.map(lambda leaf, count=count: leaf[:count], numbers)
        _check_finite(numbers, start=sum(_length(m) for m in measured))
        measured.append(numbers)
    if not measured:
        raise ValueError("there is no slice to evaluate")
    return _summary(
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *measured), label
    )


def _check_finite(numbers: Mapping[str, Any], start: int) -> None:
    """Raises if an output of a batch, whose first slice is `start`, is not finite."""
    finite = np.isfinite(numbers["label"]["output"]["rmse_hu"]["full"])
    if not np.all(finite):
        raise FloatingPointError(
            f"slice {start + int(np.flatnonzero(~finite)[0])}: the difference of "
            "output and label is not finite; check the checkpoint and that the images "
            "hold finite HU"
        )


def _summary(numbers: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Returns the results from the numbers of all slices."""

    def against(reference: str, name: str, method: NoiseMethod) -> dict[str, Any]:
        return {
            "label": name,
            "noise": _NOISE_DESCRIPTIONS[method],
            "input": _average(numbers[reference]["input"]),
            "output": _average(numbers[reference]["output"]),
        }

    results = against("label", label, "local")
    if "truth" in numbers:
        against_label = results
        results = against("truth", "truth", "difference")
        results["against_label"] = against_label
    results["n_slices"] = _length(numbers)
    results["windows"] = {
        name: {"center_hu": window.center_hu, "width_hu": window.width_hu}
        for name, window in WINDOWS.items()
    }
    return results


def prepared_slices(
    slices: Iterable[Slices], prepare: Prepare, *, batch_size: int
) -> Iterator[Slices]:
    """Yields every slice after `prepare`, on the host.

    Args:
      slices: see `evaluate_slices`.
      prepare: see `evaluate_slices`; compiled once for both functions.
      batch_size: slices per batch.
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
    """Returns {reference: {image: metrics of every slice}}."""
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
    """Yields stacked batches of `size` slices of one shape, and how many are real."""
    pending: list[Slices] = []
    signature = keys = None
    for item in slices:
        item = jax.tree.map(np.asarray, dict(item))
        if keys is None:
            keys = jax.tree.structure(item)
        elif jax.tree.structure(item) != keys:
            raise ValueError(
                f"all slices must have the same keys, got {sorted(item)} after others; "
                "evaluate slices with and without a known truth separately"
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
            f"slices lack {missing}; got {sorted(batch)}. Give these keys, or a "
            "`prepare` that makes them"
        )


def _length(numbers: Mapping[str, Any]) -> int:
    return len(numbers["label"]["input"]["rmse_hu"]["full"])


def _average(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns means over slices; those of a region are over the slices with it."""
    means: dict[str, Any] = {
        metric: {name: float(np.mean(v, dtype=np.float64)) for name, v in by.items()}
        for metric, by in numbers.items()
        if metric not in ("regions", "contour_mm")
    }
    if "contour_mm" in numbers:
        # Slices without a lung have no contour: NaN.
        moved_mm = numbers["contour_mm"][np.isfinite(numbers["contour_mm"])]
        means["contour_mm"] = float(np.mean(moved_mm)) if moved_mm.size else None
    means["regions"] = {}
    for name, region in numbers["regions"].items():
        used = region["pixels"] >= MIN_REGION_PIXELS
        for values in region.values():
            used &= np.isfinite(values)
        means["regions"][name] = {
            key: float(np.mean(region[key][used], dtype=np.float64))
            if used.any()
            else None
            for key in region
            if key != "pixels"
        } | {"n_slices": int(used.sum())}
    return means

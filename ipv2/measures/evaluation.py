"""Measures images of whole slices in HU: streamed, batched, numbers of every slice.

The images of a slice are the input, the output of a network and those of filters. Each
is measured against a reference:

| key                          | of                         | numbers                 |
|------------------------------|----------------------------|-------------------------|
| `psnr_db`, `ssim`, `rmse_hu` | each window                |                         |
| `regions`                    | background, lung, body     | bias, noise             |
| `regions` *                  | background, lung, body     | local noise             |
| `tissues` *                  | air, lung, fat, soft, bone | bias, noise             |
| `dense_foci` *               | above 300 HU               | mean, peak that is kept |
| `slopes` *                   | vessels, pleura            | share that is kept      |
| `contour_mm` *               | the lungs' outline         | how far it moved        |
| `error_frequencies` *        | image - reference          | peak and mean frequency |

`*`: with an aligned reference only, because these compare places. A number is NaN where
the slice has no such region or tissue (fewer than 100 pixels), edge or focus. Finished
evaluations have those of `full_measures` too.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from common.typing import PyTree
from ipv2.measures.contour import contour_displacement_px
from ipv2.measures.edges import edge_slopes
from ipv2.measures.error_spectrum import error_frequencies, error_spectrum
from ipv2.measures.full_measures import full_measures, removed_measures
from ipv2.measures.metrics import (
    MIN_REGION_PIXELS,
    REGIONS,
    image_metrics,
    region_metrics,
)
from ipv2.measures.tissues import dense_foci_metrics, tissue_metrics

Slices = Mapping[str, Any]
Denoise = Callable[[PyTree, Array], Array]
Prepare = Callable[[Slices], Slices]
# From a prepared batch to images by name, each `b h w` HU.
MakeImages = Callable[[Slices], Mapping[str, Array | np.ndarray]]
Numbers = dict[str, Any]

# The name of the image that all others are made of.
INPUT = "input"

NOISE_DESCRIPTIONS = {
    True: "sd of the difference from the reference; local: its median sd within 7x7 "
    "pixels",
    False: "median sd within 7x7 pixels of the image itself",
}


class Measured(NamedTuple):
    """The numbers of every image; each leaf has one number per slice.

    Attributes:
      reference: {image: numbers against the reference}.
      label: {image: numbers against IPv2's test label}; {} without one.
      spectra: {image: `error_spectrum`}, a row per slice; {} if not all measures are
        taken, or without an aligned reference.
    """

    reference: dict[str, Numbers]
    label: dict[str, Numbers]
    spectra: dict[str, Numbers]


def evaluate_slices(
    make_images: MakeImages,
    slices: Iterable[Slices],
    *,
    batch_size: int,
    aligned: bool,
    full: bool = False,
    prepare: Prepare | None = None,
) -> Measured:
    """Returns the numbers of the input and of every image, for all slices.

    All batches have `batch_size` slices. The last one, and the last one before a change
    of image size, is padded with copies whose numbers are dropped. A slice's numbers
    depend on that slice alone. Slices are read as they are needed, and only numbers
    are kept.

    Args:
      make_images: makes the images from a prepared batch; see `network_output`. The
        image `input`, the slice itself, is always measured, and is the first.
      slices: One mapping per slice, all with the same keys: `lq`, (h, w, c) HU, the
        slice in the middle of c neighbours; `reference`, (h, w) HU; `regions`, a
        mapping from `REGIONS` to (h, w) bool; `spacing_mm`, (2,), NaN if unknown; and,
        if numbers against it are wanted too, `label`, (h, w) HU. With `prepare`, its
        input instead. Other keys are passed to `prepare`; they must hold numbers.
      batch_size: Slices per batch.
      aligned: Whether the reference shows the anatomy at the same place. The label
        never counts as aligned.
      full: Whether to add `full_measures` against the reference.
      prepare: Maps a stacked batch to one with the keys above, on device, jitted;
        purification, for instance. The padding of a batch must not change the other
        slices: put one random key per slice into `slices`.

    The numbers are compiled once for each image size (and once more for the label),
    whatever the number of images.

    Raises:
      ValueError: There is no slice, a key is missing, keys change between slices,
        or `batch_size` is below 1.
      FloatingPointError: An image is not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    measured: list[Measured] = []
    done = 0
    for batch, count in prepared_batches(slices, batch_size, prepare):
        images = {INPUT: middle_slice(batch), **make_images(batch)}
        numbers = _measure_batch(images, batch, aligned, full, count)
        _check_finite(numbers, start=done)
        done += count
        measured.append(numbers)
    if not measured:
        raise ValueError("there is no slice to evaluate")
    return Measured(*(_concatenated(parts) for parts in zip(*measured, strict=True)))


def network_output(denoise: Denoise, variables: PyTree) -> MakeImages:
    """Returns what makes a network's `output` from a batch.

    Args:
      denoise: (variables, `b h w c` HU) -> `b h w` HU, traceable; see
        `denoiser.make_denoise`. It is compiled once per function object and image size:
        reuse it between evaluations.
      variables: The first argument of `denoise`.
    """
    return lambda batch: {"output": _denoised(denoise, variables, batch["lq"])}


def middle_slice(batch: Slices) -> Array:
    """Returns the slices that are denoised, without their neighbours."""
    return jnp.asarray(batch["lq"][..., batch["lq"].shape[-1] // 2], jnp.float32)


def prepared_batches(
    slices: Iterable[Slices], batch_size: int, prepare: Prepare | None = None
) -> Iterator[tuple[Slices, int]]:
    """Yields batches after `prepare`, and how many of their slices count.

    Args:
      slices: see `evaluate_slices`.
      batch_size: slices per batch.
      prepare: see `evaluate_slices`; compiled once per function object and image size.
    """
    for batch, count in _batches(slices, batch_size):
        if prepare is None:
            _check_keys(batch)
            yield batch, count
        else:
            yield _prepared(prepare, batch), count


def prepared_slices(
    slices: Iterable[Slices], prepare: Prepare, *, batch_size: int
) -> Iterator[Slices]:
    """Yields every slice after `prepare`, on the host; see `prepared_batches`."""
    for batch, count in prepared_batches(slices, batch_size, prepare):
        ready = jax.device_get(batch)
        for i in range(count):
            yield jax.tree.map(lambda leaf, i=i: leaf[i], ready)


def _measure_batch(
    images: Mapping[str, Array | np.ndarray],
    batch: Slices,
    aligned: bool,
    full: bool,
    count: int,
) -> Measured:
    """Returns the numbers of the first `count` slices of a batch."""
    target = {key: batch[key] for key in ("reference", "regions", "spacing_mm")}
    label = {**target, "reference": batch["label"]} if "label" in batch else None
    found = Measured({}, {}, {})
    for name, image in images.items():
        hu = jnp.asarray(image, jnp.float32)
        numbers = _measure(target, hu, aligned)
        if full:
            numbers |= full_measures(target, hu, aligned)
        if full and aligned:
            found.spectra[name] = _first(_spectrum(target, hu), count)
        if full and aligned and name != INPUT:
            known = (images[INPUT], batch["reference"])
            before, truth = (jnp.asarray(a, jnp.float32) for a in known)
            numbers["removed"] = removed_measures(before, hu, truth)
        found.reference[name] = _first(numbers, count)
        if label is not None:
            found.label[name] = _first(_measure(label, hu, False), count)
    return found


def _first(numbers: Numbers, count: int) -> Numbers:
    return jax.tree.map(lambda leaf: leaf[:count], jax.device_get(numbers))


def _concatenated(parts: Sequence[dict[str, Numbers]]) -> dict[str, Numbers]:
    """Joins the numbers of all batches; images keep their order."""
    return {
        name: jax.tree.map(
            lambda *leaves: np.concatenate(leaves), *(part[name] for part in parts)
        )
        for name in parts[0]
    }


@functools.partial(jax.jit, static_argnames="aligned")
def _measure(target: Slices, image: Array, aligned: bool) -> Numbers:
    """Returns the numbers of one image of every slice."""
    reference = jnp.asarray(target["reference"], jnp.float32)
    regions = {name: target["regions"][name] for name in REGIONS}
    method = "difference" if aligned else "local"
    by_region = region_metrics(image, reference, regions, method)
    numbers = {
        **image_metrics(image, reference),
        "regions": {name: _if_large(values) for name, values in by_region.items()},
    }
    if aligned:
        numbers |= _measure_places(image, reference, regions, target["spacing_mm"])
    return numbers


def _measure_places(
    image: Array, reference: Array, regions: Mapping[str, Array], spacing_mm: Array
) -> Numbers:
    """Returns the numbers that compare the same place of image and reference."""
    lung = regions["lung"]
    pixel_mm = _pixel_mm(spacing_mm)
    tissues = tissue_metrics(image, reference, lung)
    foci = dense_foci_metrics(image, reference)
    return {
        "tissues": {name: _if_large(values) for name, values in tissues.items()},
        "dense_foci": {key: foci[key] for key in ("mean_kept", "peak_kept")},
        "slopes": edge_slopes(image, reference, lung),
        "contour_mm": contour_displacement_px(image, reference, lung) * pixel_mm,
        "error_frequencies": error_frequencies(
            image - reference, regions["body"], pixel_mm
        ),
    }


@jax.jit
def _spectrum(target: Slices, image: Array) -> Numbers:
    """Returns the spectrum of the error of every slice."""
    reference = jnp.asarray(target["reference"], jnp.float32)
    pixel_mm = _pixel_mm(target["spacing_mm"])
    return error_spectrum(image - reference, target["regions"]["body"], pixel_mm)


def _pixel_mm(spacing_mm: Array) -> Array:
    return jnp.sqrt(jnp.prod(jnp.asarray(spacing_mm, jnp.float32), axis=-1))


def _if_large(values: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the numbers of a region without its size: NaN in small ones."""
    large = values["pixels"] >= MIN_REGION_PIXELS
    return {
        key: jnp.where(large, value, jnp.nan)
        for key, value in values.items()
        if key != "pixels"
    }


def _check_finite(numbers: Measured, start: int) -> None:
    """Raises if an image of a batch, whose first slice is `start`, is not finite."""
    for name, found in numbers.reference.items():
        finite = np.isfinite(found["rmse_hu"]["full"])
        if not np.all(finite):
            raise FloatingPointError(
                f"slice {start + int(np.flatnonzero(~finite)[0])}: the difference of "
                f"{name} and reference is not finite; check the checkpoint and that "
                "the images hold finite HU"
            )


@functools.partial(jax.jit, static_argnames="prepare")
def _prepared(prepare: Prepare, batch: Slices) -> Slices:
    return prepare(batch)


@functools.partial(jax.jit, static_argnames="denoise")
def _denoised(denoise: Denoise, variables: PyTree, stack: Array) -> Array:
    return denoise(variables, jnp.asarray(stack, jnp.float32))


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
    missing = sorted({"lq", "reference", "regions", "spacing_mm"} - set(batch))
    if not missing:
        missing = [f"regions[{n!r}]" for n in REGIONS if n not in batch["regions"]]
    if missing:
        raise ValueError(
            f"slices lack {missing}; got {sorted(batch)}. Give these keys, or a "
            "`prepare` that makes them"
        )

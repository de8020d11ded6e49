"""Images for the quantization of a denoiser, and its judgement on held-out slices.

Slices are of the real sample CT and of the phantom, in network units or HU. The
network's training decides which of them judge: those that it held out.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from common.dataset import load_split, prepare
from common.report.parts import ViewedSlice, to_stored_hu
from ipv2.datasets.embedded import EMBEDDED, PHANTOM, EmbeddedSplits
from ipv2.datasets.simulated_pairs import SAMPLE_CT
from ipv2.kernels.photon_noise import DoseParams
from ipv2.measures.evaluation import INPUT, evaluate_slices, prepared_slices
from ipv2.models import hu_to_unit, unit_to_hu
from ipv2.purification.purify import regions
from ipv2.training.stacks import Stacks

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "phantom": "drawn thoraxes without noise",
        "noisy_phantom": "drawn thoraxes with simulated noise of the low dose",
        "real": "real CT of one patient with simulated noise of the low dose",
    }
)
"""Kinds of images by name; only the last one needs patients."""

_FULL_RANGE_HU = 4096.0

ApplyUnit = Callable[[jax.Array], jax.Array]


class ImageData(NamedTuple):
    """Where slices come from.

    Attributes:
      splits: those of the network's training.
      noise: the scan of the low dose.
      cache: folder of built data sets.
      embedded: 'phantom', 'sample_ct', or both.
      size: side of the phantom's slices, pixels.
      channels: neighbouring slices that the network takes.
      limit: judged slices of each data set; 0: all.
    """

    splits: EmbeddedSplits
    noise: DoseParams
    cache: Path
    embedded: tuple[str, ...] = EMBEDDED
    size: int = 512
    channels: int = 1
    limit: int = 0

    def seen(self, name: str) -> Stacks:
        """Returns the stacks of a data set that are for training."""
        return self._stacks(name, "train")

    def held_out(self, name: str) -> Stacks:
        """Returns the stacks to judge on: test, or val where test is empty."""
        has_test = "test" in self._builder(name).info.splits
        return self._stacks(name, "test" if has_test else "val")

    def _stacks(self, name: str, split: str) -> Stacks:
        return Stacks(load_split(self._builder(name), split), self.channels)

    def _builder(self, name: str) -> tfds.core.DatasetBuilder:
        """Returns the builder of a data set that is there; builds it if it is not."""
        builder = self.splits.builder(
            name, noise=self.noise, phantom_size=self.size, cache=self.cache
        )
        prepare(builder)
        return builder


def image_patches(
    data: ImageData, kind: str, count: int, side: int, seed: int
) -> np.ndarray:
    """Returns (count, side, side, channels) patches in network units.

    Args:
      data: where slices come from; those for training alone are used.
      kind: a name of `KINDS`.
      count: number of patches.
      side: of a patch, pixels.
      seed: of their places.

    Raises:
      ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of images {kind!r}, accepted: {', '.join(KINDS)}")
    source = data.seen(SAMPLE_CT if kind == "real" else PHANTOM)
    rng = np.random.default_rng(seed)
    stacks = [
        _stack(source[int(place)], kind)
        for place in rng.permutation(len(source))[: min(count, 16)]
    ]
    patches = []
    for stack in itertools.islice(itertools.cycle(stacks), count):
        top, left = (rng.integers(edge - side + 1) for edge in stack.shape[:2])
        patches.append(stack[top : top + side, left : left + side])
    return np.asarray(hu_to_unit(jnp.asarray(np.stack(patches))))


def _stack(record: Mapping[str, Any], kind: str) -> np.ndarray:
    """Returns (h, w, c) HU of a record."""
    if kind == "phantom":
        truth = np.asarray(record["truth"], np.float32)
        return np.repeat(truth[..., None], len(record["lq"]), axis=-1)
    return np.moveaxis(np.asarray(record["lq"], np.float32), 0, -1)


class _Slice(NamedTuple):
    """A held-out slice.

    Attributes:
      name: tells which one it is.
      prepared: its images, regions and pixel size, as `evaluate_slices` takes them.
    """

    name: str
    prepared: Mapping[str, Any]


class Judge:
    """Measures functions on held-out slices; each slice is prepared once."""

    def __init__(self, data: ImageData) -> None:
        """Reads nothing yet."""
        self._data = data

    @functools.cached_property
    def _slices(self) -> dict[str, list[_Slice]]:
        found = {}
        for dataset in self._data.embedded:
            source = self._data.held_out(dataset)
            count = min(self._data.limit or len(source), len(source))
            # Evenly: the first slices of the phantom are all of one patient.
            chosen = [source[i * len(source) // count] for i in range(count)]
            records = ({key: record[key] for key in _KEYS} for record in chosen)
            prepared = prepared_slices(records, _prepared, batch_size=1)
            names = [_name(dataset, record) for record in chosen]
            found[dataset] = list(map(_Slice, names, prepared))
        return found

    def __call__(self, functions: Mapping[str, ApplyUnit]) -> dict[str, Any]:
        """Returns {data set: {name: {measure: mean over slices}}}.

        Args:
          functions: by name, from (n, h, w, c) to (n, h, w, 1), network units. The one
            called `float` is what the others are also compared with.
        """
        return {
            dataset: _judged([one.prepared for one in slices], functions)
            for dataset, slices in self._slices.items()
        }

    def views(self, functions: Mapping[str, ApplyUnit]) -> list[ViewedSlice]:
        """Returns the middle slice of each data set, with what functions make of it.

        Differences are from the image `float`, or from the truth without one.

        Args:
          functions: as in a call.
        """
        return [
            _view(slices[len(slices) // 2], functions)
            for slices in self._slices.values()
        ]


_KEYS = ("lq", "truth", "spacing_mm")


def _name(dataset: str, record: Mapping[str, Any]) -> str:
    patient = record["patient"].decode()
    of = dataset if patient == dataset else f"{dataset}, {patient}"
    return f"{of}, slice {int(record['slice'])}"


def _prepared(batch: Any) -> dict[str, Any]:
    truth = batch["truth"].astype(jnp.float32)
    return {
        "lq": jnp.moveaxis(batch["lq"].astype(jnp.float32), 1, -1),
        "reference": truth,
        "spacing_mm": batch["spacing_mm"],
        "regions": regions(truth)._asdict(),
    }


def _images(
    functions: Mapping[str, ApplyUnit], lq: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns (n, h, w) HU by name of (n, h, w, c) HU."""
    x = hu_to_unit(jnp.asarray(lq))
    return {
        name: np.asarray(unit_to_hu(apply(x)))[..., 0]
        for name, apply in functions.items()
    }


def _view(one: _Slice, functions: Mapping[str, ApplyUnit]) -> ViewedSlice:
    lq, truth = one.prepared["lq"], one.prepared["reference"]
    made = {name: image[0] for name, image in _images(functions, lq[None]).items()}
    images = {INPUT: lq[..., lq.shape[-1] // 2], **made, "truth": truth}
    pixel_mm = float(np.sqrt(np.prod(one.prepared["spacing_mm"])))
    return ViewedSlice(
        name=one.name,
        role="held out",
        images={name: to_stored_hu(np.asarray(hu)) for name, hu in images.items()},
        reference="float" if "float" in images else "truth",
        pixel_mm=pixel_mm if math.isfinite(pixel_mm) else None,
    )


def _judged(
    slices: list[Mapping[str, Any]], functions: Mapping[str, ApplyUnit]
) -> dict[str, dict[str, float | None]]:
    against_float: dict[str, list[float]] = {name: [] for name in functions}

    def images_of(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        images = _images(functions, batch["lq"])
        for name, image in images.items():
            if "float" in images:
                mse = np.mean(np.square(image - images["float"]))
                against_float[name].append(float(mse))
        return images

    measured = evaluate_slices(images_of, slices, batch_size=1, aligned=True)
    return {
        name: _flat(numbers) | _difference(against_float.get(name, []))
        for name, numbers in measured.reference.items()
    }


def _difference(errors: list[float]) -> dict[str, float | None]:
    """Returns RMSE and PSNR against the float network, from each slice's MSE."""
    if not errors or not any(errors):
        return {}
    return {
        "rmse_to_float_hu": float(np.mean(np.sqrt(errors))),
        "psnr_to_float_db": float(
            np.mean(10 * np.log10(_FULL_RANGE_HU**2 / np.array(errors)))
        ),
    }


def _flat(numbers: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the means over slices of the measures that a table shows.

    None: no slice has such a tissue.
    """
    found = {
        f"psnr_{window}_db": values for window, values in numbers["psnr_db"].items()
    }
    for tissue, values in numbers["tissues"].items():
        found[f"bias_{tissue}_hu"] = values["bias_hu"]
        found[f"noise_{tissue}_hu"] = values["noise_sd_hu"]
    found["contour_mm"] = numbers["contour_mm"]
    return {
        key: float(np.nanmean(values)) if np.isfinite(values).any() else None
        for key, values in found.items()
    }

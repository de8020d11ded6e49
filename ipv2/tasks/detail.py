"""What is kept of nodules that were put into the truth: `config.evaluate.detail`.

Nodules of known size and density are inserted into the truth of the slices held out,
and the low dose of `config.noise` is simulated anew, since the input that is there does
not show them. Network and filters then denoise that. See `measures.nodules`.

Half of the places stay empty. An observer tells them from nodules
(`measures.observer`). The same observer sees the scan at several doses, undenoised and
denoised. The undenoised curve gives the dose that an image is worth
(`measures.dose_equivalence`). If the truth
has no noise of its own, the observer knows it: what limits him is noise, and what the
denoiser did. A truth with noise he does not know: anatomy limits him too, and the
truth's noise counts.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array

from common.config import ConfigDict
from common.errors import UserError
from common.progress import Progress
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.measures.dose_equivalence import equivalent_dose
from ipv2.measures.evaluation import INPUT, MakeImages, Slices, prepared_batches
from ipv2.measures.intervals import resampled_groups
from ipv2.measures.nodule_insertion import (
    cut_patches,
    insert_nodules,
    measure_sharpness_px,
)
from ipv2.measures.nodule_metrics import (
    NoduleNumbers,
    nodule_numbers,
    summarise_nodules,
    summary_to_json,
)
from ipv2.measures.nodules import (
    EMPTY,
    NODULES,
    SHARPNESS_PX,
    DrawnNodules,
    draw_nodules,
    patch_half_px,
    place_masks,
)
from ipv2.measures.observer import (
    Detectability,
    channel_outputs,
    channel_widths_mm,
    detectability_by_kind,
)
from ipv2.purification.purify import regions
from ipv2.tasks import settings
from ipv2.tasks.references import evenly
from ipv2.tasks.sources import Joined

_PLACES = 16  # of a slice, half of them empty
_DOSES = (0.02, 0.05, 0.1, 0.25)  # of the curves, above the dose of the images
# Scanners store 12 bits from -1024 HU.
_STORED_HU = (-1024, 3071)
# Data sets whose truth has no noise.
_NO_NOISE = ("phantom",)
_KNOWN = "knows the background"
_UNKNOWN = "does not know the background"
_ONE_DOSE = "the scan has the truth's own dose: there is no curve of doses"

ImagesOf = Callable[[str], MakeImages]
# What the observer sees of each kind at every dose.
_Curve = Mapping[str, Mapping[float, Detectability]]


class _Setting(NamedTuple):
    """How the slices of a data set are simulated.

    Attributes:
      name: of the data set.
      doses: of the curves, rising; the first is that of the images.
      scan: at a dose.
      known: whether the observer knows the background.
      spacing_mm: smallest pixel of the slices.
      sharpness_px: of each slice.
    """

    name: str
    doses: tuple[float, ...]
    scan: Callable[[float], DoseParams]
    known: bool
    spacing_mm: float
    sharpness_px: np.ndarray


class _Group(NamedTuple):
    """Numbers of the nodules of a tissue, of all slices.

    Attributes:
      kinds: (s, n) of every place.
      found: (s, n).
      numbers: of every image.
      seen: `s n w c`, what the observer's channels see of every image.
      undenoised: the same of the scan at every dose.
      denoised: the same of the network's output at every dose; {} without a network.
    """

    kinds: np.ndarray
    found: np.ndarray
    numbers: dict[str, NoduleNumbers]
    seen: dict[str, np.ndarray]
    undenoised: dict[float, np.ndarray]
    denoised: dict[float, np.ndarray]


def require_single_slices(config: ConfigDict, channels: int) -> None:
    """Raises UserError if nodules would have to be in neighbouring slices.

    Args:
      config: a checked IPv2 config.
      channels: slices that the network sees.
    """
    if config.evaluate.detail and channels > 1:
        raise UserError(
            f"config.evaluate.detail: the network sees {channels} slices, accepted: 1; "
            "nodules in neighbouring slices need the distance of slices, which data "
            "sets do not hold. Leave it out."
        )


def measure_detail(
    held_out: Joined,
    config: ConfigDict,
    images_of: ImagesOf,
    denoised: MakeImages | None = None,
) -> dict[str, Any]:
    """Returns what input, output and filters keep of nodules, by data set.

    Args:
      held_out: the records that are held out, with a known truth.
      config: a checked IPv2 config, of which `noise`, `seed` and `evaluate` count.
      images_of: from a data set to what makes images from a batch, see `evaluation`;
        the network sees the slice alone.
      denoised: makes the network's `output`, for its curve of doses; None for no curve.

    Returns:
      The key `detail` of results; docs/evaluation.md lists it.

    Raises:
      UserError: slices are too small, or show no edge of body or lung.
    """
    chosen = set(evenly(range(len(held_out)), config.evaluate.slices))
    found = {}
    with Progress("detail", len(chosen), "slices") as progress:
        for name, all_places in held_out.places_by_dataset().items():
            places = [place for place in all_places if place in chosen]
            if places:
                setting = _setting(name, held_out, places, config)
                make = (images_of(name), denoised)
                found[name] = _of_dataset(
                    held_out, places, setting, config, make, progress
                )
    return found


def _setting(
    name: str, source: Joined, places: Sequence[int], config: ConfigDict
) -> _Setting:
    """Returns how to simulate, after a look at every slice."""
    sharpness, spacing = [], []
    for place in places:
        record = source[place]
        if "truth" not in record:
            raise UserError(
                f"config.evaluate.detail: {name} has no known truth to insert nodules "
                "into. Leave it out, or evaluate on data with a known truth."
            )
        truth = jnp.asarray(record["truth"], jnp.float32)[None]
        sharpness.append(float(_sharpness(truth)[0]))
        spacing.append(float(np.min(record["spacing_mm"])))
    if not np.any(np.isfinite(sharpness)):
        raise UserError(
            f"config.evaluate.detail: no slice of {name} has an edge of 500 HU, which "
            "says how sharp a nodule has to be. Leave it out."
        )
    usual = np.nanmedian(sharpness)
    known = name in _NO_NOISE
    base = settings.dose_params(config)
    full = 1.0 if known else float(base.input_dose)
    own = math.inf if known else base.input_dose
    between = [dose for dose in _DOSES if base.dose < dose < full]
    return _Setting(
        name=name,
        doses=tuple(sorted({min(float(base.dose), full), *between, full})),
        scan=lambda dose: dataclasses.replace(base, dose=dose, input_dose=own),
        known=known,
        spacing_mm=min(spacing),
        sharpness_px=np.where(np.isfinite(sharpness), sharpness, usual),
    )


def _of_dataset(
    source: Joined,
    places: Sequence[int],
    setting: _Setting,
    config: ConfigDict,
    make: tuple[MakeImages, MakeImages | None],
    progress: Progress,
) -> dict[str, Any]:
    """Returns the numbers of one data set."""
    patients: list[str] = []

    def records() -> Iterator[dict[str, Any]]:
        for place, sharpness in zip(places, setting.sharpness_px, strict=True):
            record = source[place]
            patient = record["patient"]
            patients.append(patient.decode() if isinstance(patient, bytes) else patient)
            yield {
                "truth": record["truth"],
                "spacing_mm": np.float32(record["spacing_mm"]),
                "sharpness_px": np.float32(sharpness),
                "number": np.uint32(place),
            }
            progress.update()

    parts: dict[str, list[_Group]] = {tissue: [] for tissue in NODULES}
    size = config.evaluate.batch_size
    for batch, count in prepared_batches(records(), size, _prepare):
        for tissue, groups in parts.items():
            one = _measured(tissue, batch, setting, config.seed, *make)
            groups.append(_first(one, count))
    over, groups = resampled_groups(patients)
    joined = {tissue: _joined(found) for tissue, found in parts.items()}
    curves = {
        tissue: _curve(tissue, found, found.undenoised)
        for tissue, found in joined.items()
    }
    of_network = {
        tissue: _curve_to_json(_curve(tissue, found, found.denoised))
        for tissue, found in joined.items()
        if found.denoised
    }
    return {
        "dose": setting.doses[0],
        "doses": list(setting.doses),
        "observer": _KNOWN if setting.known else _UNKNOWN,
        "n_slices": len(patients),
        "n_patients": len(set(patients)),
        "interval_over": over,
        "nodules": {
            tissue: _summarised(tissue, found, curves[tissue], groups)
            for tissue, found in joined.items()
        },
        "undenoised": {
            tissue: _curve_to_json(curve) for tissue, curve in curves.items()
        },
        **({"denoised": of_network} if of_network else {}),
    }


def _prepare(batch: Any) -> dict[str, Any]:
    truth = batch["truth"].astype(jnp.float32)
    return {**batch, "truth": truth, "regions": regions(truth)._asdict()}


def _measured(
    tissue: str,
    batch: Slices,
    setting: _Setting,
    seed: int,
    make_images: MakeImages,
    denoised: MakeImages | None,
) -> _Group:
    """Returns the numbers of a batch's nodules of a tissue."""
    truth, spacing = batch["truth"], batch["spacing_mm"]
    half = _half_px(tissue, setting, truth.shape)
    keys = _keys(seed, batch["number"], tissue)
    drawn, shown = _drawn(
        keys,
        truth,
        batch["regions"]["lung"],
        spacing,
        batch["sharpness_px"],
        tissue=tissue,
        half_px=half,
        margin_px=_margin_px(tissue, setting),
    )
    background = truth if setting.known else jnp.zeros_like(truth)

    def seen(image: Array) -> np.ndarray:
        change = image - background
        found = _channels(change, drawn, spacing, tissue=tissue, half_px=half)
        return np.asarray(found)

    scans = {
        dose: _scan(_folded(keys, i), shown, spacing, setting.scan(dose))
        for i, dose in enumerate(setting.doses)
    }
    low = scans[setting.doses[0]]

    def made(make: MakeImages, scan: Array) -> dict[str, Array]:
        found = make({**batch, "lq": scan[..., None]})
        return {name: jnp.asarray(image, jnp.float32) for name, image in found.items()}

    images = {INPUT: low, **made(make_images, low)}
    return _Group(
        kinds=np.asarray(drawn.kind),
        found=np.asarray(drawn.found),
        numbers={
            name: jax.device_get(
                _numbers(image, shown, truth, drawn, spacing, half_px=half)
            )
            for name, image in images.items()
        },
        seen={name: seen(image) for name, image in images.items()},
        undenoised={dose: seen(image) for dose, image in scans.items()},
        denoised={
            dose: seen(made(denoised, image)["output"]) for dose, image in scans.items()
        }
        if denoised
        else {},
    )


def _curve(
    tissue: str, found: _Group, seen_by_dose: Mapping[float, np.ndarray]
) -> _Curve:
    """Returns what is seen of each kind at every dose."""
    by_dose = {
        dose: _detected(tissue, found, seen) for dose, seen in seen_by_dose.items()
    }
    return {
        str(kind): {dose: seen[str(kind)] for dose, seen in by_dose.items()}
        for kind in NODULES[tissue]
    }


def _curve_to_json(curve: _Curve) -> dict[str, dict[str, list[float | None]]]:
    """Returns {kind: {'value', 'low', 'high'}}, a number for each dose."""
    return {
        kind: {
            key: [_finite(getattr(seen, key)) for seen in by_dose.values()]
            for key in ("value", "low", "high")
        }
        for kind, by_dose in curve.items()
    }


def _summarised(
    tissue: str, found: _Group, curve: _Curve, groups: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns {image: {kind: what is kept of it}}."""
    result = {}
    for name in sorted(found.numbers, key=lambda one: (one != INPUT, one == "output")):
        numbers = found.numbers[name]
        kept = summary_to_json(
            summarise_nodules(
                numbers, found.kinds, found.found, NODULES[tissue], groups
            )
        )
        detected = _detected(tissue, found, found.seen[name])
        for kind, one in kept.items():
            one["d_prime"] = detected[kind]._asdict()
            one["equivalent_dose"] = _equivalent(curve[kind], detected[kind])
        result[name] = _finite(kept)
    return result


def _detected(tissue: str, found: _Group, seen: np.ndarray) -> dict[str, Detectability]:
    """Returns d' by kind; None where the channels hold no noise to tell apart."""
    nodules = NODULES[tissue]
    try:
        return detectability_by_kind(seen, found.kinds, found.found, nodules)
    except ValueError as error:
        logging.warning("config.evaluate.detail: no d': %s", error)
        empty = int(np.sum(found.found & (found.kinds == EMPTY)))
        return {
            str(one): Detectability(
                None, None, None, int(np.sum(found.found & (found.kinds == i))), empty
            )
            for i, one in enumerate(nodules)
        }


def _equivalent(
    curve: Mapping[float, Detectability], target: Detectability
) -> dict[str, Any]:
    if len(curve) < 2:
        return {"dose": None, "low": None, "high": None, "note": _ONE_DOSE}
    return equivalent_dose(curve, target)._asdict()


def _first(group: _Group, count: int) -> _Group:
    return jax.tree.map(lambda leaf: leaf[:count], group)


def _joined(parts: Sequence[_Group]) -> _Group:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _finite(tree: Any) -> Any:
    """Returns plain numbers, as JSON holds them; None where there is no finite one."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, float):
        return float(f"{tree:.6g}") if math.isfinite(tree) else None
    return tree


def _keys(seed: int, numbers: Array, tissue: str) -> Array:
    """Returns a key for each slice, which depends on its place alone."""
    rng = jax.random.fold_in(jax.random.key(seed), list(NODULES).index(tissue))
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.asarray(numbers))


def _folded(keys: Array, number: int) -> Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, 100 + number)


def _margin_px(tissue: str, setting: _Setting) -> int:
    radius_mm = max(nodule.diameter_mm for nodule in NODULES[tissue]) / 2
    return math.ceil(radius_mm / setting.spacing_mm + SHARPNESS_PX[1])


def _half_px(tissue: str, setting: _Setting, shape: tuple[int, ...]) -> int:
    half = patch_half_px(NODULES[tissue], setting.spacing_mm)
    if min(shape[-2:]) <= 2 * half:
        raise UserError(
            f"config.evaluate.detail: {setting.name} has slices of {shape[-2]} x "
            f"{shape[-1]} pixels, and a nodule with its neighbourhood takes "
            f"{2 * half + 1}. Leave it out, or give larger slices."
        )
    return half


_sharpness = jax.jit(measure_sharpness_px)
_numbers = jax.jit(nodule_numbers, static_argnames="half_px")


def _scan(keys: Array, shown: Array, spacing: Array, scan: DoseParams) -> Array:
    simulated = simulate_low_dose(keys, shown, spacing, scan)
    return jnp.rint(jnp.clip(simulated, *_STORED_HU))


@functools.partial(jax.jit, static_argnames=("tissue", "half_px", "margin_px"))
def _drawn(
    keys: Array,
    truth: Array,
    lung: Array,
    spacing_mm: Array,
    sharpness_px: Array,
    *,
    tissue: str,
    half_px: int,
    margin_px: int,
) -> tuple[DrawnNodules, Array]:
    """Returns the nodules, and the truth with them."""
    mask = place_masks(truth, lung, margin_px)[tissue]
    drawn = draw_nodules(keys, mask, NODULES[tissue], count=_PLACES, half_px=half_px)
    shown = insert_nodules(truth, drawn, spacing_mm, sharpness_px, half_px=half_px)
    return drawn, shown


@functools.partial(jax.jit, static_argnames=("tissue", "half_px"))
def _channels(
    image: Array, drawn: DrawnNodules, spacing_mm: Array, *, tissue: str, half_px: int
) -> Array:
    patches = cut_patches(image, drawn.centre_px, half_px)
    return channel_outputs(patches, spacing_mm, channel_widths_mm(NODULES[tissue]))

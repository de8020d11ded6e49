"""Which slices a report shows, and how many fit on its page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from common.report.parts import ViewedSlice, to_stored_hu
from ipv2.measures.evaluation import INPUT
from ipv2.report.numbers import DatasetNumbers, Path, at

ROLES = ("worst", "median", "best")
MOST_PIXELS = 36 * 512 * 512
"""Of all images of a page: one of 512 x 512 takes about 0.3 MB of 15, at most 0.45. If
that is too much, the page leaves out the last slices, and says so."""


class Choice(NamedTuple):
    """A slice to show.

    Attributes:
      index: its place among the rows of the data set.
      role: `worst`, `median`, `best`; `only slice`, `slice` where nothing ranks them.
    """

    index: int
    role: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """The slices of a data set to show.

    Attributes:
      choices: worst first; each slice once.
      rule: says in words by which number they were chosen.
    """

    choices: Sequence[Choice]
    rule: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeenSlice:
    """A slice whose images were made again.

    Attributes:
      index: its place among the rows of the data set.
      role: see `Choice`.
      images: HU by name, in the order to show: those of the rows, then references.
      reference: the image that numbers compare with.
      lung: rough mask of the reference's lungs.
      pixel_mm: size of a pixel; None if it is not known.
    """

    index: int
    role: str
    images: Mapping[str, Float[np.ndarray, "h w"]]
    reference: str
    lung: Bool[np.ndarray, "h w"]
    pixel_mm: float | None


def choose_slices(numbers: DatasetNumbers) -> Chosen:
    """Returns the worst, the median and the best slice by the output's numbers.

    By the PSNR in the lung window of slices with lung; without any, by the RMSE over
    the body; without an aligned reference, by the RMSE against the label. Of several
    outputs the mean counts. Slices without this number are not chosen; if none has it,
    the first, the middle and the last slice are.

    Args:
      numbers: of the data set.
    """
    errors, rule = _errors(numbers)
    known = [index for index in np.argsort(-errors, kind="stable").tolist()
             if np.isfinite(errors[index])]  # fmt: skip
    if not known:
        places = _spread(len(numbers.rows))
        return Chosen(
            choices=[Choice(place, "slice") for place in places],
            rule="No number ranks the slices: these are spread over all of them.",
        )
    places = _spread(len(known))
    roles = {1: ("only slice",), 2: ("worst", "best"), 3: ROLES}[len(places)]
    choices = [
        Choice(known[place], role) for place, role in zip(places, roles, strict=True)
    ]
    return Chosen(choices=choices, rule=rule)


def _spread(count: int) -> list[int]:
    """Returns the first, the middle and the last of so many places, each once."""
    return sorted({0, (count - 1) // 2, count - 1} & set(range(count)))


def _errors(numbers: DatasetNumbers) -> tuple[np.ndarray, str]:
    """Returns how wrong each slice's output is, and by what that is said."""
    mean = "the outputs' mean" if len(numbers.outputs) > 1 else "the output's"
    if not numbers.aligned:
        return _mean(numbers, ("rmse_hu", "full")), (
            f"Chosen by {mean} RMSE against the label, since no reference is aligned."
        )
    lung = np.isfinite(numbers.values(INPUT, ("regions", "lung", "bias_hu")))
    if lung.any():
        psnr = _mean(numbers, ("psnr_db", "lung"))
        return np.where(lung, -psnr, np.nan), (
            f"Chosen by {mean} PSNR in the lung window, among slices that show lung."
        )
    bias, noise = (
        _mean(numbers, ("regions", "body", key)) for key in ("bias_hu", "noise_sd_hu")
    )
    body = np.hypot(bias, noise)
    if np.isfinite(body).any():
        return body, (
            f"No slice shows lung (100 pixels or more), so they were chosen by {mean} "
            "RMSE over the body."
        )
    return _mean(numbers, ("rmse_hu", "full")), (
        f"No slice shows lung or body (100 pixels or more), so they were chosen by "
        f"{mean} RMSE over the whole image."
    )


def _mean(numbers: DatasetNumbers, path: Path) -> np.ndarray:
    """Returns the outputs' mean number of every slice; NaN without any."""
    found = [numbers.values(image, path) for image in numbers.outputs]
    return np.mean(found, axis=0) if found else np.full(len(numbers.rows), np.nan)


class Wanted(NamedTuple):
    """A slice that may be shown.

    Attributes:
      group: its place among groups; the first are more important.
      rank: its place within the group; the first are more important.
      pixels: of all its images.
    """

    group: int
    rank: int
    pixels: int


def which_fit(wanted: Sequence[Wanted], most: int = MOST_PIXELS) -> list[bool]:
    """Returns which slices are shown: the first of each group before the second of any.

    Args:
      wanted: in any order.
      most: pixels of all images together.
    """
    fits = [False] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i].rank, wanted[i].group))
    left = most
    for index in order:
        if wanted[index].pixels <= left:
            fits[index] = True
            left -= wanted[index].pixels
    return fits


def viewed_slice(numbers: DatasetNumbers, seen: SeenSlice) -> ViewedSlice:
    """Returns a slice for the viewer, with its numbers below its images.

    Args:
      numbers: of the data set.
      seen: the slice.
    """
    row = numbers.rows[seen.index]
    name, patient = str(row["name"]), str(row["patient"])
    volume = patient if name == patient else f"{patient}, {name}"
    return ViewedSlice(
        name=f"{numbers.name}, {volume}, slice {row['slice']}",
        role=seen.role,
        images={image: to_stored_hu(hu) for image, hu in seen.images.items()},
        reference=seen.reference,
        pixel_mm=seen.pixel_mm,
        facts={
            image: text
            for image in seen.images
            if (text := _facts(row.get(image), numbers))
        },
    )


def _facts(found: Mapping[str, object] | None, numbers: DatasetNumbers) -> str:
    """Returns an image's numbers of a slice, in words."""
    if found is None:
        return ""
    label = numbers.block["label"]
    told = [
        ("PSNR lung window {:.2f} dB", ("psnr_db", "lung")),
        ("RMSE {:.1f} HU", ("rmse_hu", "full")),
        ("bias in lung {:+.1f} HU", ("tissues", "lung", "bias_hu")),
    ]
    if not numbers.aligned:
        told = [("RMSE against " + label + " {:.1f} HU", ("rmse_hu", "full"))]
    values = [(text, at(found, path)) for text, path in told]
    return ", ".join(text.format(value) for text, value in values if value is not None)

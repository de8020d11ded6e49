"""From numbers of every slice to a block of results: means, deviations, intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ipv2.measures.evaluation import Measured, Numbers
from ipv2.measures.intervals import Summary, resampled_groups, summarise

# Six digits are more than any number of a slice has.
_DIGITS = 6


def summary_block(
    images: Mapping[str, Numbers], patients: Sequence[str]
) -> dict[str, Any]:
    """Returns means, deviations and intervals of every image.

    Args:
      images: {image: numbers}, each leaf with one number per slice.
      patients: the patient of each slice.

    Returns:
      Each image by name: its means, with `n` beside the means of a tissue and of dense
      foci and `n_slices` beside those of a region: slices that have a value. `sd`,
      `interval` ([low, high], 95 %) and `n`: {image: tree of the same shape}. None
      where no value is known. `interval_over`: 'patients' or 'slices'; `n_slices`,
      `n_patients`.
    """
    over, groups = resampled_groups(patients)
    summaries = {
        name: _map(lambda leaf: summarise(leaf, groups), numbers)
        for name, numbers in images.items()
    }

    def part(choose: Callable[[Summary], Any]) -> dict[str, Any]:
        return {name: _map(choose, tree) for name, tree in summaries.items()}

    means = {
        name: _with_counts(tree, summaries[name])
        for name, tree in part(lambda one: one.mean).items()
    }
    return {
        "n_slices": len(patients),
        "n_patients": len(set(patients)),
        "interval_over": over,
        **means,
        "sd": part(lambda one: one.sd),
        "interval": part(_interval),
        "n": part(lambda one: one.n),
    }


def mean_spectra(spectra: Mapping[str, Numbers]) -> dict[str, dict[str, Any]]:
    """Returns the mean spectrum of every image's error.

    Args:
      spectra: {image: `error_spectrum.error_spectrum`}, a row per slice.

    Returns:
      {image: {'frequency_per_mm', 'power_hu2_mm2', 'n'}}: means over the n slices that
      have a spectrum, a number per ring; None without any.
    """
    return {image: _mean_spectrum(found) for image, found in spectra.items()}


def _mean_spectrum(spectrum: Mapping[str, np.ndarray]) -> dict[str, Any]:
    known = np.all([np.isfinite(v).all(axis=1) for v in spectrum.values()], axis=0)
    n = int(known.sum())
    means = {
        key: [_plain(float(v)) for v in values[known].mean(axis=0)] if n else None
        for key, values in spectrum.items()
    }
    return {**means, "n": n}


def image_names(block: Mapping[str, Any]) -> list[str]:
    """Returns the images of a block: `input`, and what was made of it."""
    return list(block["n"])


def slice_numbers(measured: Measured, index: int) -> dict[str, Any]:
    """Returns {image: numbers} of one slice as plain numbers; NaN is None."""
    return {
        name: _map(lambda leaf: _plain(float(leaf[index])), numbers)
        for name, numbers in measured.reference.items()
    }


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    """Applies a function to the leaves of nested dictionaries."""
    if isinstance(tree, dict):
        return {key: _map(function, value) for key, value in tree.items()}
    return function(tree)


def _with_counts(means: dict[str, Any], summaries: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the number of slices to the groups that a slice may lack."""
    result = dict(means)
    for group, key in (("regions", "n_slices"), ("tissues", "n")):
        if group in means:
            result[group] = {
                name: values | {key: _count(summaries[group][name])}
                for name, values in means[group].items()
            }
    if "dense_foci" in means:
        count = _count(summaries["dense_foci"])
        result["dense_foci"] = means["dense_foci"] | {"n": count}
    return result


def _count(summaries: Mapping[str, Summary]) -> int:
    return next(iter(summaries.values())).n


def _interval(one: Summary) -> list[float] | None:
    if one.low is None or one.high is None:
        return None
    return [one.low, one.high]


def _plain(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None

"""The verdict of a report: one sentence, made from the numbers.

PSNR in the lung window decides. Two images of the same slices are told apart by the
mean of their difference, slice by slice, with its 95 % interval: 'no better than' where
the interval holds 0. Fewer than six patients (slices of a single one) allow no
conclusion: even if all of them agreed, a sign test would miss 5 %.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ipv2.measures.evaluation import INPUT
from ipv2.measures.intervals import Summary
from ipv2.measures.tissues import TISSUES
from ipv2.report.numbers import ALIGNED, DatasetNumbers

DECIDES = ("psnr_db", "lung")
FEWEST = 6
LARGE_BIAS_HU = 10.0
NOTHING = "Nothing was measured, because nobody is held out (config.data.split)."
NO_RANKING = (
    "These numbers cannot rank networks: the label is partly another breath, where a "
    "good network differs from it, and partly a filtered input, which it need not "
    "resemble."
)
_BY = "by PSNR in the lung window, with 95 % intervals, "


def verdict(
    datasets: Sequence[DatasetNumbers],
    names: Mapping[str, str],
    doses: Mapping[str, float],
) -> str:
    """Returns what came out, in one sentence with a part for each data set.

    Args:
      datasets: what was measured.
      names: what to call outputs, by image; others have their own names.
      doses: of the input, by data set, where it is known.
    """
    if not datasets:
        return NOTHING
    ranks = any(one.aligned for one in datasets)
    return _sentence([_of_dataset(one, names, doses) for one in datasets], ranks)


def _sentence(parts: Sequence[str], ranks: bool) -> str:
    text = ranks * _BY + "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _of_dataset(
    numbers: DatasetNumbers, names: Mapping[str, str], doses: Mapping[str, float]
) -> str:
    block = numbers.block
    place = f"on {numbers.name} ({sample_words(block)}{_dose(numbers.name, doses)})"
    if not numbers.aligned:
        return (
            f"{place} no network can be ranked, since the reference is {block['label']}"
            ", a label and not the truth"
        )
    chosen = numbers.best(numbers.outputs, DECIDES)
    if chosen is None:
        return f"{place} no output has a number"
    name = names.get(chosen, chosen)
    if len(numbers.outputs) > 1:
        name = f"{name}, the best of {len(numbers.outputs)},"
    told = [_against(numbers, chosen, *one) for one in _others(numbers, names, chosen)]
    text = f"{place} {name} is {_listed(told)}"
    return text + _bias(numbers, chosen) + _few(block)


def _others(
    numbers: DatasetNumbers, names: Mapping[str, str], chosen: str
) -> list[tuple[str, str]]:
    """Returns what to compare with, and its name: filter, input, the next output."""
    found = []
    filter_ = numbers.best(numbers.filters, DECIDES)
    if filter_ is not None:
        found.append((filter_, f"the best filter ({filter_})"))
    found.append((INPUT, "the input"))
    rest = [image for image in numbers.outputs if image != chosen]
    second = numbers.best(rest, DECIDES)
    if second is not None:
        found.append((second, f"the next ({names.get(second, second)})"))
    return found


def _against(numbers: DatasetNumbers, image: str, other: str, words: str) -> str:
    return compared_words(numbers.paired(image, other, DECIDES), words)


def compared_words(one: Summary, other: str, unit: str = "dB") -> str:
    """Returns how an image compares with another one, of which more is better.

    Args:
      one: mean and interval of its number less that of the other.
      other: the other's name.
      unit: of the number.
    """
    if one.mean is None:
        return f"not comparable with {other}, for want of slices with both numbers"
    if one.low is None or one.high is None:
        return f"not told apart from {other} with {one.mean:+.2f} {unit} (no interval)"
    if one.low > 0:
        span = f"({one.low:.2f} to {one.high:.2f})"
        return f"better than {other} by {one.mean:.2f} {unit} {span}"
    if one.high < 0:
        span = f"({-one.high:.2f} to {-one.low:.2f})"
        return f"worse than {other} by {-one.mean:.2f} {unit} {span}"
    span = f"({one.low:+.2f} to {one.high:+.2f})"
    return f"no better than {other} with {one.mean:+.2f} {unit} {span}"


def _bias(numbers: DatasetNumbers, image: str) -> str:
    """Returns the largest bias by tissue; '' if all are small or not defined."""
    found = {
        tissue: numbers.estimate(image, ("tissues", tissue, "bias_hu"))
        for tissue in TISSUES
    }
    known = {tissue: one.mean for tissue, one in found.items() if one is not None}
    if not known:
        return ""
    worst = max(known, key=lambda tissue: abs(known[tissue]))
    if abs(known[worst]) <= LARGE_BIAS_HU:
        return ""
    return f", with a bias of {known[worst]:+.1f} HU in {worst}"


def _few(block: Mapping[str, Any]) -> str:
    """Returns what the sample does not allow; '' for enough patients."""
    slices, patients = block["n_slices"], block["n_patients"]
    if block["interval_over"] == "patients":
        few = f"{patients} patients" if patients < FEWEST else ""
    elif slices == 1:
        return ", but one slice allows no conclusion"
    else:
        few = f"{slices} slices of one patient" if slices < FEWEST else ""
        if not few:
            return ", of one patient, which says nothing of others"
    return f", but {few} allow no conclusion" if few else ""


def sample_words(block: Mapping[str, Any]) -> str:
    """Returns how many slices of how many patients were measured."""
    slices, patients = block["n_slices"], block["n_patients"]
    return (
        f"{slices} slice{'s' * (slices != 1)} of "
        f"{patients} patient{'s' * (patients != 1)}"
    )


def _dose(name: str, doses: Mapping[str, float]) -> str:
    return f" at {100 * doses[name]:g} % of the dose" if name in doses else ""


def _listed(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def paired_verdict(compared: Mapping[str, Any]) -> str:
    """Returns how finished runs differ from the first, in one sentence.

    Args:
      compared: the content of `paired.json`.
    """
    first = compared["first"]
    parts = []
    for dataset, block in compared["datasets"].items():
        place = f"on {dataset} ({sample_words(block)})"
        if block["label"] not in ALIGNED:
            parts.append(
                f"{place} no network can be ranked, since the reference is "
                f"{block['label']}, a label and not the truth"
            )
            continue
        told = [
            f"{run} is {_paired_words(measures, first)}"
            for run, measures in block["runs"].items()
        ]
        parts.append(f"{place} {_listed(told)}{_few(block)}")
    ranks = any(one["label"] in ALIGNED for one in compared["datasets"].values())
    return _sentence(parts, ranks)


def _paired_words(measures: Mapping[str, Any], first: str) -> str:
    found = measures.get(".".join(DECIDES))
    if found is None or found["difference"] is None:
        return f"not comparable with {first}, for want of slices with both numbers"
    low, high = found["interval"] or (None, None)
    one = Summary(found["difference"], found["sd"], found["n"], low, high)
    return compared_words(one, first)

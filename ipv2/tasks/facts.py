"""What a report says of a run in words: data, network, pairs, dose, time, machine."""

import datetime
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from common.config import ConfigDict
from common.typing import PyTree
from common.version import STATED
from ipv2.report.verdict import NO_RANKING
from ipv2.tasks.sources import Sources

CAPTIONS = {
    "none": "pairs as they are",
    "v1": "IPv1",
    "v2": "IPv2",
    "no_background": "IPv2 - Background",
    "no_add": "IPv2 - Add noise",
    "no_remove": "IPv2 - Remove noise",
    "aligned": "IPv2, aligned",
    "registered": "registered",
    "simulated": "simulated",
    "gated": "gated",
    "weighted": "weighted",
}
"""What tables and pictures call the kinds of pairs."""

# The user's own pairs; the low dose of all other data sets is simulated.
_AS_SCANNED = ("paired_folders",)
_MOST_NAMES = 6


def data_words(sources: Sources, results: Mapping[str, Any]) -> str:
    """Returns what was trained on and what was measured, by data set.

    Args:
      sources: the data of the run.
      results: the content of `results.json` or of one run of it.
    """
    told = []
    for name in sources.names:
        of_train = _split_words(sources.data.get(name), "train")
        rows = [row for row in results["slices"] if row["dataset"] == name]
        patients = list(dict.fromkeys(str(row["patient"]) for row in rows))
        measured = (
            f"measured: {_counted(len(rows), 'slice')} of {_named(patients)}"
            if rows
            else "nothing measured"
        )
        told.append(f"{name} ({', '.join(filter(None, (of_train, measured)))})")
    return "; ".join(told)


def _split_words(data: Mapping[str, Any] | None, split: str) -> str:
    if data is None:
        return ""
    records, patients = data["records"][split], data["patients"][split]
    text = f"{split}: {_counted(records, 'slice')}"
    return f"{text} of {_named(patients)}" if records else text


def _named(patients: Sequence[str]) -> str:
    shown = ", ".join(patients[:_MOST_NAMES])
    more = ", ..." if len(patients) > _MOST_NAMES else ""
    return f"{_counted(len(patients), 'patient')} ({shown}{more})"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def network_words(config: ConfigDict, variables: PyTree) -> str:
    """Returns the network of a config with the number of its parameters."""
    model = config.model
    return (
        f"{model.name}, {parameters_words(variables)}, {model.dtype}, sees "
        f"{_counted(model.channels, 'slice')}"
    )


def parameters_words(variables: PyTree) -> str:
    """Returns how many parameters variables hold."""
    leaves = jax.tree.leaves(variables["params"])
    return f"{sum(leaf.size for leaf in leaves):,} parameters"


def pairs_words(purify: Mapping[str, Any]) -> str:
    """Returns the kind of training pairs of a section `purify`."""
    version = purify["version"]
    text = CAPTIONS.get(version, version)
    if version not in ("v1", "v2"):
        return text
    keys = ("variant", "add_noise", "remove_noise", "remove_background")
    keys += ("align_contour",)
    options = ", ".join(f"{key} {purify[key]}" for key in keys if key in purify)
    return f"{text} ({options})"


def doses_of(sources: Sources, config: ConfigDict) -> dict[str, float]:
    """Returns the dose of the inputs by data set, where it is known."""
    names = [name for name in sources.names if name not in _AS_SCANNED]
    return dict.fromkeys(names, float(config.noise.dose))


def dose_words(sources: Sources, config: ConfigDict) -> str:
    """Returns the dose of the inputs and the noise model."""
    noise = config.noise
    model = (
        f"noise model: {noise.photons:,.0f} photons a ray at the normal dose, "
        f"electronic variance {noise.electronic_variance:g}, "
        f"kernel {noise.filter_name} {noise.cutoff:g}"
    )
    ranges = ", ".join(
        f"{key} {noise[key][0]:g} to {noise[key][1]:g}"
        for key in ("dose_range", "photons_range", "cutoff_range", "current_range")
        if any(noise[key])
    )
    doses = doses_of(sources, config)
    inputs = (
        f"inputs simulated at {100 * noise.dose:g} % of the normal dose"
        if doses
        else f"inputs as scanned; noise of training at {100 * noise.dose:g} %"
    )
    drawn = f"; training draws {ranges}" if ranges else ""
    return f"{inputs}; {model}{drawn}"


def run_facts(seed: int, seconds: float | None = None) -> dict[str, str]:
    """Returns seed, software, time and machine.

    Args:
      seed: of the run.
      seconds: that it took; None if nobody measured.
    """
    found = software_facts()
    if seconds is not None:
        found["Time"] += f", after {_duration(seconds)} in this command"
    return {"Seed": str(seed), **found, "Machine": machine_words()}


def software_facts() -> dict[str, str]:
    """Returns the software's version with its commit, and the time."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"Software": f"version {STATED}", "Time": now}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def machine_words() -> str:
    """Returns the devices that jax uses, and the system."""
    return (
        f"{jax.device_count()} x {jax.devices()[0].device_kind} "
        f"({jax.default_backend()}), processes: {jax.process_count()}, "
        f"{platform.platform()}, jax {jax.__version__}"
    )


def warnings_of(results: Mapping[str, Any]) -> list[str]:
    """Returns what a reader must know before trusting these numbers.

    Args:
      results: the content of `results.json` or of one run of it.
    """
    found = []
    for name, block in results["datasets"].items():
        if block["label"] in ("v1", "v2"):
            found.append(f"{name}: {NO_RANKING}")
        alignment = block.get("alignment")
        if block["label"] == "gt" and alignment and not alignment["aligned"]:
            found.append(
                f"{name}: config.evaluate.label=gt says that the pairs are aligned, "
                "but they do not look so."
            )
        if block["interval_over"] == "slices":
            found.append(
                f"{name}: all slices are of one patient. Intervals are over slices and "
                "say nothing of other patients."
            )
    if "outputs" in results:
        found += _of_outputs(results["outputs"])
    return found


def _of_outputs(report: Mapping[str, Any]) -> list[str]:
    counts = {
        "files or volumes were skipped": len(report["skipped"]),
        "slices held out have no output": report["n_slices_without_output"],
        "outputs are of patients who are not held out": report["n_not_held_out"],
    }
    return [f"{count} {words}." for words, count in counts.items() if count]

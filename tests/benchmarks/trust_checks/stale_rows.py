"""Scenarios: a result of other settings is refused; the message names them."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acq.tasks.registry import TASKS as ACQ_TASKS
from common.config import ConfigDict
from configs import acq_r20_cifar10
from tests.benchmarks.trust_checks.batch_rows import Bench
from tests.benchmarks.trust_checks.ownership_rows import run_on, scans
from tests.benchmarks.trust_checks.pair_rows import train_keys
from tests.benchmarks.trust_checks.running import Ran, run, run_keys
from tests.benchmarks.trust_checks.scenarios import (
    Scenario,
    changed,
    completion,
    contents,
    refusal,
)
from tests.cases import pair_cases
from tests.cases.dicom_files import two_series
from tests.cases.image_cases import WINDOW, by_sitk, png
from tests.cases.source import PIXEL_MM, Source, chest

_OTHER = (-500.0, 1400.0)


def _again(
    first: Callable[[], Ran], second: Callable[[], Ran], output: Path, *words: str
) -> list[str]:
    """The first command goes through; the second is refused and changes nothing."""
    problems = completion(first())
    if problems:
        return problems
    before = contents(output)
    return refusal(second(), *words) + changed(before, output)


def same_again(task: str, bench: Bench, folder: Path) -> list[str]:
    """The same command finds all results complete."""
    root, output = folder / "in", folder / "out"
    scans(task, bench, root)
    problems = completion(run_on(task, bench, root, output))
    before = contents(output)
    ran = run_on(task, bench, root, output)
    problems += completion(ran) + changed(before, output)
    return problems or ([] if "2 there before" in ran.text else [ran.last])


def source_replaced(task: str, bench: Bench, folder: Path) -> list[str]:
    """A's content changes between two commands."""
    root, output = folder / "in", folder / "out"
    scans(task, bench, root)

    def second() -> Ran:
        if task == "purify":
            image = pair_cases.image(pair_cases.hu_of("lq", 7))
            pair_cases.put(root, "lq", "A/scan.nii.gz", image)
        else:
            source = Source(hu=chest(seed=7), headers=())
            by_sitk("scan.nii.gz")(root / "A", source)
        return run_on(task, bench, root, output)

    return _again(lambda: run_on(task, bench, root, output), second, output, "A/scan")


def other_root(bench: Bench, folder: Path) -> list[str]:
    """The second command reads another folder of pairs with the same names."""
    first, second, output = (folder / name for name in ("one", "two", "out"))
    scans("purify", bench, first)
    pair_cases.good(second, ("B", "A"))
    return _again(
        lambda: run_on("purify", bench, first, output),
        lambda: run_on("purify", bench, second, output),
        output,
        "two",
    )


def other_match(bench: Bench, folder: Path) -> list[str]:
    """The second command matches slices in another way."""
    root, output = folder / "in", folder / "out"
    scans("purify", bench, root)
    return _again(
        lambda: run_on("purify", bench, root, output),
        lambda: run_on("purify", bench, root, output, **{"data.match": "index"}),
        output,
        "match",
    )


def other_reading(
    task: str, one: dict[str, Any], two: dict[str, Any], bench: Bench, folder: Path
) -> list[str]:
    """The second command reads PNG with another window or pixel size."""
    root, output = folder / "in", folder / "out"
    if task == "purify":
        pair_cases.pictures(root)
    else:
        png("p_0001.png")(root / "A", bench.source)
    (key,) = {key for key in one if one[key] != two[key]}
    return _again(
        lambda: run_on(task, bench, root, output, **one),
        lambda: run_on(task, bench, root, output, **two),
        output,
        key.split(".")[-1],
    )


def other_series(task: str, bench: Bench, folder: Path) -> list[str]:
    """The second command reads another series of the same folder."""
    root, output = folder / "in", folder / "out"
    two_series(root / "A", bench.source)
    return _again(
        lambda: run_on(task, bench, root, output, **{"data.series": "Thorax"}),
        lambda: run_on(task, bench, root, output, **{"data.series": "Other"}),
        output,
        "series",
    )


def train_on_changed_data(bench: Bench, folder: Path) -> list[str]:
    """A run resumes only with its own data."""
    root, workdir = folder / "in", folder / "work"
    pair_cases.good(root)
    keys = train_keys(root, folder)
    problems = completion(run_keys("train", workdir, keys))
    if problems:
        return problems
    # As a run that was stopped before its end.
    (workdir / "results.json").unlink()
    image = pair_cases.image(pair_cases.hu_of("lq", 7))
    pair_cases.put(root, "lq", "A/scan.nii.gz", image)
    return refusal(run_keys("train", workdir, keys), "data")


def patients_stay(bench: Bench, folder: Path) -> list[str]:
    """Added patients move no other patient to another split."""
    root = folder / "in"
    patients = tuple("ABCDEFGH")
    splits = []
    for count in (5, 8):
        pair_cases.good(root, patients[:count])
        cache = folder / f"cache{count}"
        keys = train_keys(root, folder) | {"data.cache": str(cache)}
        problems = completion(run_keys("train", folder / f"work{count}", keys))
        if problems:
            return problems
        splits.append(_splits(folder / f"work{count}"))
    before, after = splits
    if not before:
        return ["no data set says which patients are in which split"]
    return [
        f"{patient} moved from {split} to {after.get(patient)}"
        for patient, split in before.items()
        if after.get(patient) != split
    ]


def _splits(workdir: Path) -> dict[str, str]:
    """Returns the split of each patient, as the run records it."""
    found: dict[str, str] = {}
    run = json.loads((workdir / "data.json").read_text())
    for dataset in run["datasets"].values():
        told = dataset["patients"]
        found |= {patient: split for split, names in told.items() for patient in names}
    return found


def window_forgotten(bench: Bench, folder: Path) -> list[str]:
    """The first command lacks the window; the corrected one must succeed."""
    root, workdir = folder / "in", folder / "work"
    pair_cases.pictures(root)
    keys = train_keys(root, folder) | {"data.pixel_mm": pair_cases.PIXEL_MM}
    problems = refusal(run_keys("train", workdir, keys), "window")
    return problems + completion(
        run_keys("train", workdir, keys | {"data.window": WINDOW})
    )


def weights_forgotten(bench: Bench, folder: Path) -> list[str]:
    """Quantizing without weights leaves nothing that refuses the next command."""

    def command(seed: int) -> Ran:
        config: ConfigDict = acq_r20_cifar10.get_config()
        config.seed = seed
        return run("quantize", config, folder / "work", tasks=ACQ_TASKS)

    problems = refusal(command(0), "weights")
    second = command(1)
    if "another config" in second.text or "weights" not in second.text:
        problems.append(second.last)
    return problems


def purify_stopped_at_nothing(bench: Bench, folder: Path) -> list[str]:
    """A command that purified nothing does not bind the output to its keys."""
    root, output = folder / "in", folder / "out"
    pair_cases.pictures(root)
    problems = refusal(run_on("purify", bench, root, output), "data.window")
    keys = {"data.window": WINDOW, "data.pixel_mm": pair_cases.PIXEL_MM, "seed": 1}
    return problems + completion(run_on("purify", bench, root, output, **keys))


def evaluated_outside(bench: Bench, folder: Path) -> list[str]:
    """A trained network is evaluated on all of another test set."""
    pair_cases.good(folder / "in")
    pair_cases.good(folder / "elsewhere", ("X", "Y"))
    workdir = folder / "work"
    keys = train_keys(folder / "in", folder)
    problems = completion(run_keys("train", workdir, keys))
    keys |= {"data.root": str(folder / "elsewhere"), "data.split": (0.0, 0.0, 1.0)}
    return problems or completion(run_keys("evaluate", workdir, keys))


_PIXEL = {"data.pixel_mm": PIXEL_MM}
_WINDOWS = ({"data.window": WINDOW} | _PIXEL, {"data.window": _OTHER} | _PIXEL)
_PIXELS = (_WINDOWS[0], {"data.window": WINDOW, "data.pixel_mm": 2.5})
STALE = [
    *(
        Scenario(name, task, functools.partial(check, task), refused)
        for task in ("denoise", "simulate", "purify")
        for name, check, refused in (
            ("same_again", same_again, False),
            ("source_replaced", source_replaced, True),
        )
    ),
    *(
        Scenario(f"other_{name}", task, functools.partial(other_reading, task, *keys))
        for task, name, keys in (
            ("denoise", "window", _WINDOWS),
            ("simulate", "window", _WINDOWS),
            ("purify", "window", _WINDOWS),
            ("simulate", "pixel_size", _PIXELS),
            ("purify", "pixel_size", _PIXELS),
        )
    ),
    *(
        Scenario("other_series", task, functools.partial(other_series, task))
        for task in ("denoise", "simulate")
    ),
    Scenario("other_root", "purify", other_root),
    Scenario("other_match", "purify", other_match),
    Scenario("first_command_wrong", "purify", purify_stopped_at_nothing, False),
    Scenario("first_command_wrong", "train", window_forgotten, False),
    Scenario("first_command_wrong", "quantize", weights_forgotten, False),
    Scenario("data_changed", "train", train_on_changed_data),
    Scenario("patients_added", "train", patients_stay, False),
    Scenario("test_set_from_elsewhere", "evaluate", evaluated_outside, False),
]

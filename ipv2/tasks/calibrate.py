"""Task calibrate: finds the scanner's parameters of the simulation from its scans.

The task calibrates on slices of all volumes of `config.data.input`, which are of one
scanner and protocol. With `config.data.low`, the same patients under the same names at
`config.data.low_dose`, it calibrates on pairs, which also give the electronic noise.
The tube current of each slice is used where DICOM series state it. The task prints the
parameters, how sure they are, and the overrides with which `simulate` and the training
recipes use them. It writes the parameters to `workdir/calibration.json`.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.config import ConfigDict
from common.errors import Incomplete, UserError
from common.files import write_atomically
from common.progress import Progress
from common.workdir import hold_workdir
from ipv2.calibration import Calibration, calibrate
from ipv2.ct_io import Item, ReadOptions, Skipped, Volume, match_slices
from ipv2.jobs.run import log_left_out, reason_of
from ipv2.tasks.check import check_simulate_config
from ipv2.tasks.scans import (
    evenly_spaced,
    find_scans,
    input_of,
    read_scan,
)
from ipv2.tasks.settings import read_options
from ipv2.volumes.low_dose import slice_currents

# At most so many volumes are read, and about so many slices of all of them kept: more
# than a calibration uses. Of aligned pairs it uses all; these are 1 GB of 512 x 512.
_VOLUMES = 24
_SLICES, _PAIR_SLICES = 48, 512


def calibrate_scans(config: ConfigDict, workdir: Path) -> None:
    """Calibrates on `config.data.input`, and on `config.data.low` if it is given.

    Args:
      config: the config of the recipe `simulate`; checked here.
      workdir: the folder for `calibration.json` and the embedded input.

    Raises:
      UserError: the config is wrong, no volume can be used, the volumes show nothing to
        calibrate on, another command works in the workdir, or it cannot be written.
      Incomplete: `config.strict`, and a volume was skipped.
    """
    check_simulate_config(config)
    with hold_workdir(workdir, "task calibrate"):
        _require_replaceable(workdir / "calibration.json")
        _calibrate_scans(config, workdir)


def _calibrate_scans(config: ConfigDict, workdir: Path) -> None:
    """Calibrates in a folder that is held."""
    items, unused = _list_scans(input_of(config, workdir))
    lows = None
    if config.data.low:
        low_items, low_unused = _list_scans(Path(config.data.low))
        lows = {item.name: item.path for item in low_items}
        unused += low_unused
        items = [item for item in items if item.name in lows]
    if not items:
        raise UserError(
            f"config.data.low: no volume of {config.data.low} has the name of one of "
            f"{config.data.input}"
        )
    items = [items[place] for place in evenly_spaced(len(items), _VOLUMES)]
    options = read_options(config)
    skipped: list[Skipped] = []
    parts: list[tuple[np.ndarray, ...]] = []
    spacing: list[float] = []
    currents: list[tuple[np.ndarray, ...]] = []
    with Progress("calibrate", len(items), "volumes") as progress:
        for item in items:
            try:
                low = None if lows is None else lows[item.name]
                most = _SLICES if lows is None else _PAIR_SLICES
                count = math.ceil(most / len(items))
                images, mm, current = _slices(item.path, low, options, count, unused)
                if parts and images[0].shape[1:] != parts[0][0].shape[1:]:
                    raise UserError(
                        f"slices of {images[0].shape[1:]} pixels, others have "
                        f"{parts[0][0].shape[1:]}; calibrate them apart"
                    )
                parts.append(images)
                spacing.extend([mm] * len(images[0]))
                currents.append(current)
            except (UserError, OSError) as error:
                skipped.append(Skipped(path=item.path, reason=reason_of(error)))
            progress.update(note=item.name)
    log_left_out(skipped, unused)
    if not parts:
        raise UserError("no volume to calibrate on; see the list above")
    stacks = tuple(np.concatenate(stack) for stack in zip(*parts, strict=True))
    factors = tuple(np.concatenate(stack) for stack in zip(*currents, strict=True))
    scanner = calibrate(
        stacks if lows is not None else stacks[0],
        np.asarray(spacing, np.float32),
        dose=config.input_dose if lows is None else _doses(config),
        electronic_variance=config.noise.electronic_variance,
        views=config.noise.views or None,
        relative_current=factors if lows is not None else factors[0],
    )
    print("\n".join([*scanner.describe(), "", "to use it:", *overrides(scanner)]))
    _write(workdir / "calibration.json", scanner)
    if config.strict and skipped:
        raise Incomplete(f"{len(skipped)} skipped, see the list above; config.strict")


def _require_replaceable(path: Path) -> None:
    """Raises UserError if there is a file that no calibration wrote."""
    if not (path.exists() or path.is_symlink()):
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    fields = dataclasses.fields(Calibration)
    names = {field.name for field in fields}
    # Records of older versions lack fields that have a default now.
    old = {field.name for field in fields if field.default is dataclasses.MISSING}
    if (
        path.is_symlink()
        or not isinstance(found, dict)
        or not old <= found.keys() <= names
    ):
        raise UserError(
            f"{path}: is in the way, and task calibrate did not write it. Move it, or "
            "give another --workdir."
        )


def _write(path: Path, scanner: Calibration) -> None:
    record = json.dumps(dataclasses.asdict(scanner), indent=2)
    try:
        write_atomically(path, record + "\n")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}). Give a --workdir "
            "that can."
        ) from error


def overrides(scanner: Calibration) -> list[str]:
    """Returns the command-line arguments with which a recipe simulates the scanner."""
    values = {
        "photons": f"{scanner.photons:.6g}",
        "electronic_variance": f"{scanner.electronic_variance:.6g}",
        "filter_name": scanner.filter_name,
        "cutoff": f"{scanner.cutoff:.6g}",
        "window": "'(" + ", ".join(f"{w:.6g}" for w in scanner.window) + ")'",
    }
    if not scanner.window:
        del values["window"]
    if scanner.bowtie_mm:
        values["bowtie_mm"] = f"{scanner.bowtie_mm:.6g}"
    return [f"  --config.noise.{key}={value}" for key, value in values.items()]


def _doses(config: ConfigDict) -> tuple[float, float]:
    if config.data.low_dose >= config.input_dose:
        raise UserError(
            f"config.data.low_dose: got {config.data.low_dose}, accepted: below "
            f"config.input_dose ({config.input_dose})"
        )
    return config.data.low_dose, config.input_dose


def _list_scans(source: Path) -> tuple[list[Item], list[Skipped]]:
    found = find_scans(source)
    return list(found.items), list(found.unused)


def _slices(
    path: Path,
    low: Path | None,
    options: ReadOptions,
    count: int,
    unused: list[Skipped],
) -> tuple[tuple[np.ndarray, ...], float, tuple[np.ndarray, ...]]:
    """Evenly spaced slices of a volume or of (low, normal), pixel size and currents."""
    normal = read_scan(path, options)
    volumes: Sequence[Volume] = (normal,)
    places = [(index,) for index in range(len(normal.hu))]
    if low is not None:
        low_volume = read_scan(low, options)
        volumes = (low_volume, normal)
        places, _ = match_slices(low_volume, normal)
    for volume in volumes:
        unused.extend(volume.left_out)
    index = np.asarray(places)[evenly_spaced(len(places), count)]
    images = tuple(v.hu[index[:, side]] for side, v in enumerate(volumes))
    currents = tuple(
        slice_currents(v, len(v.hu))[index[:, side]] for side, v in enumerate(volumes)
    )
    return images, normal.spacing_mm[2], currents

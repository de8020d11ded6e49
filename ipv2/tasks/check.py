"""Checks of a whole IPv2 config: single keys, and keys that do not fit together."""

import numpy as np

from common import config as c
from common.config import ConfigDict
from common.errors import UserError
from ipv2.models import FLOWS, attributes_of
from ipv2.tasks import settings
from ipv2.tasks.rules import RULES, SIMULATE_RULES


def check_config(
    config: ConfigDict,
    *,
    takes_weights: bool = False,
    takes_volumes: bool = False,
    takes_outputs: bool = False,
) -> None:
    """Raises one error that names every problem of an IPv2 config.

    Args:
      config: the config.
      takes_weights: whether the task reads `config.model.weights`.
      takes_volumes: whether the task purifies whole volumes.
      takes_outputs: whether the task reads `config.evaluate.outputs`, and writes
        `config.evaluate.png`.

    Raises:
      UserError: a value is not accepted, or values do not fit together.
    """
    problems = c.rule_problems(config, RULES)
    if not problems:
        train, data = config.train, config.data
        if train.batch_size % train.patches_per_slice:
            problems.append(
                f"train.batch_size: got {train.batch_size}, accepted: a multiple of "
                f"config.train.patches_per_slice ({train.patches_per_slice})"
            )
        if train.batch_size % train.accumulate:
            problems.append(
                f"train.accumulate: got {train.accumulate}, accepted: a divisor of "
                f"config.train.batch_size ({train.batch_size})"
            )
        if config.purify.align_contour and config.purify.variant == "reference":
            problems.append(
                "purify.align_contour: got True, accepted: False with "
                "config.purify.variant='reference', which follows the published steps"
            )
        problems += _volume_problems(config, takes_volumes=takes_volumes)
        problems += _model_problems(config)
        if config.model.weights and not takes_weights:
            problems.append(
                f"model.weights: got {config.model.weights!r}, which only --task "
                "export reads, into the --workdir; then --task denoise and evaluate "
                "take that --workdir"
            )
        problems += _evaluate_problems(config, takes_outputs=takes_outputs)
        problems += [
            f"compare.{key}: no {name!r} in config.compare.{table}; it has: "
            f"{', '.join(config.compare[table])}"
            for key, table in (("pairs", "options"), ("models", "zoo"))
            for name in config.compare[key]
            if name not in config.compare[table]
        ]
        if data.root and data.normal_dose:
            problems.append("data.normal_dose: given with config.data.root; give one")
        problems += _deal_problems(data)
        if config.noise.dose > config.noise.input_dose:
            problems.append(
                f"noise.dose: got {config.noise.dose}, accepted: at most "
                f"config.noise.input_dose ({config.noise.input_dose})"
            )
        problems += _fan_problems(config)
        problems = problems or _pair_problems(config)
    c.refuse(problems)


def _pair_problems(config: ConfigDict) -> list[str]:
    """Lists the keys that do not fit the kind of training pairs."""
    version, noise = config.purify.version, config.noise
    drawn = [key for key in settings.DRAWN if any(np.atleast_1d(noise[key]))]
    problems = []
    if version != "simulated":
        problems += [
            f"noise.{key}: got {noise[key]} with config.purify.version={version!r}, "
            "accepted: with 'simulated', which draws scans"
            for key in drawn
        ]
        if config.train.shrink != (1,):
            problems.append(
                f"train.shrink: got {config.train.shrink} with config.purify.version="
                f"{version!r}, accepted: (1,); means of pixels have less noise than a "
                "scan, so that only 'simulated' noise fits them"
            )
    elif drawn and noise.source_distance_mm:
        problems.append(
            f"noise.source_distance_mm: given with config.noise.{drawn[0]}, which "
            "takes parallel beams only; give one"
        )
    if len(noise.target_dose) != len(config.train.shrink):
        problems.append(
            f"noise.target_dose: got {noise.target_dose}, accepted: one for each of "
            f"config.train.shrink={config.train.shrink}"
        )
    if sorted(set(config.train.shrink)) != list(config.train.shrink):
        problems.append(
            f"train.shrink: got {config.train.shrink}, accepted: numbers that rise"
        )
    if not problems:
        try:
            for target_dose in noise.target_dose:
                params = settings.pair_params(config, target_dose)
                if params.ranges is not None:
                    params.ranges.extremes(params.dose)
        except ValueError as error:
            problems.append(f"noise: {error}")
    return problems


def _volume_problems(config: ConfigDict, *, takes_volumes: bool) -> list[str]:
    """Problems of `purify.volume=True`; None and False fit everywhere."""
    if not config.purify.volume:
        return []
    if not takes_volumes:
        return [
            "purify.volume: got True, which only --task purify reads: all other tasks "
            "draw single slices, whose masks are in 2-D. Leave it out"
        ]
    if config.purify.variant == "reference":
        return [
            "purify.volume: got True, accepted: False with "
            "config.purify.variant='reference', which follows the published steps"
        ]
    return []


def _evaluate_problems(config: ConfigDict, *, takes_outputs: bool) -> list[str]:
    """Lists the keys of `config.evaluate` that do not fit together."""
    outputs = config.evaluate.outputs
    if not takes_outputs:
        only = {"outputs": "reads", "png": "writes"}
        problems = [
            f"evaluate.{key}: got {config.evaluate[key]!r}, which only --task evaluate "
            f"{does}"
            for key, does in only.items()
            if config.evaluate[key]
        ]
        if problems:
            return problems
    if outputs and not config.data.root:
        return [
            f"evaluate.outputs: got {outputs!r} without config.data.root, the folder "
            "with lq/ and gt/ whose lq/ these are outputs of"
        ]
    if not config.evaluate.detail:
        return []
    if config.data.root:
        return [
            "evaluate.detail: got True with config.data.root, whose pairs have no "
            "known truth to insert nodules into; accepted: with "
            "config.data.normal_dose or the embedded data"
        ]
    return []


def _model_problems(config: ConfigDict) -> list[str]:
    """Lists the keys of `config.model` that do not fit the network."""
    name = config.model.name
    try:
        attributes = attributes_of(name)
    except UserError as error:  # a network of the user
        return [str(error).removeprefix("config.")]
    problems = [
        f"model.{key}: {name} has none; it has {', '.join(sorted(attributes))}"
        for key, value in config.model.items()
        if key not in ("name", *settings.EXPORTED) and value and key not in attributes
    ]
    if name in FLOWS and config.train.loss != "mse":
        problems.append(
            f"train.loss: got {config.train.loss!r}, accepted: 'mse', which is what a "
            f"flow ({name}) is trained on"
        )
    if not problems:
        try:
            settings.denoiser_spec(config).check()
        except UserError as error:  # a network of the user
            problems.append(f"model.name: {error}")
    return problems


def _deal_problems(data: ConfigDict) -> list[str]:
    """Lists the keys of the splits that do not fit together."""
    keys = ("data.val_patients", "data.test_patients")
    both = sorted(set(data.val_patients) & set(data.test_patients))
    problems = [f"{keys[1]}: {name!r} is in config.{keys[0]} too" for name in both]
    if not (data.val_patients or data.test_patients):
        return problems
    if data.split_by == "slice":
        problems.append(
            f"data.split_by: got 'slice' with config.{keys[0]} or config.{keys[1]}, "
            "accepted: 'patient'"
        )
    if not (data.root or data.normal_dose):
        problems.append(
            f"{keys[1]}, {keys[0]}: names for the patients of config.data.root or "
            "config.data.normal_dose; the embedded data have none"
        )
    return problems


def check_simulate_config(config: ConfigDict) -> None:
    """Raises one error that names every problem of a config of `simulate`.

    Raises:
      UserError: a value is not accepted, or values do not fit together.
    """
    problems = c.rule_problems(config, SIMULATE_RULES)
    if not problems:
        if config.dose > config.input_dose:
            problems.append(
                f"dose: got {config.dose}, accepted: at most config.input_dose "
                f"({config.input_dose}), since noise can only be added"
            )
        if config.calibrate and config.noise.source_distance_mm:
            problems.append(
                "noise.source_distance_mm: given with config.calibrate, which takes "
                "parallel beams only; give one"
            )
        problems += _fan_problems(config)
    c.refuse(problems)


def _fan_problems(config: ConfigDict) -> list[str]:
    if config.noise.source_distance_mm and config.noise.views in (1, 2):
        return [f"noise.views: got {config.noise.views}, a fan beam needs 3 (or 0)"]
    return []

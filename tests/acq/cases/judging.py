"""Runs cases and returns the problems of their outcomes."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from absl import logging as absl_logging

from acq.classifier import Classifier
from acq.quantization.student_layers import bits_by_layer, quant_layers
from acq.tasks.check import check
from acq.tasks.quantize import open_inputs
from acq.tasks.settings import quantization_settings, task_settings, teacher_settings
from acq.teacher.loading import load_teacher
from acq.teacher.settings import create_teacher, stated_record
from common.config import ConfigDict
from common.errors import UserError
from tests.acq.cases.case import Case
from tests.acq.cases.command_config import command_config
from tests.acq.cases.weights_cases import made_variables

Judge: TypeAlias = Callable[[Case, Path], list[str]]


def judge_teacher(case: Case, folder: Path) -> list[str]:
    """Returns the problems of a case of weights, compared with its variables."""

    def load(config: ConfigDict) -> list[str]:
        teacher = load_teacher(teacher_settings(config))
        pairs = zip(
            jax.tree.leaves(teacher.variables),
            jax.tree.leaves(made_variables(teacher.network)),
            strict=True,
        )
        same = all(np.array_equal(found, made) for found, made in pairs)
        return [] if same else ["other values than the file's"]

    return _judge(case, folder, load)


def judge_inputs(case: Case, folder: Path) -> list[str]:
    """Returns the problems of a case of networks or images."""

    def open_all(config: ConfigDict) -> list[str]:
        _, _, evaluation = open_inputs(task_settings(config), folder / "run")
        warned = bool(evaluation and evaluation.warnings)
        return (
            [f"warned: {evaluation.warnings}"] if warned and not case.expected else []
        )

    sys.path.insert(0, str(folder))  # the folder of the case's own networks
    try:
        return _judge(case, folder, open_all)
    finally:
        sys.path.remove(str(folder))


def judge_bits(case: Case, folder: Path) -> list[str]:
    """Returns the problems of a case of bits, compared with `case.bits`."""

    def bit_problems(config: ConfigDict) -> list[str]:
        record = stated_record(teacher_settings(config))
        # It needs no variables, because nothing here applies it.
        teacher = Classifier(
            network=create_teacher(record), variables={}, record=record
        )
        quantizer = quantization_settings(config).quantizer
        usual = {
            "weights": quantizer.weight_bits,
            "activations": quantizer.activation_bits,
            "others": quantizer.other_bits,
        }
        found = {
            name: bits
            for group, layers in bits_by_layer(quantizer, teacher).items()
            for name, bits in layers.items()
            if bits != usual[group]
        }
        layers = quant_layers(quantizer, teacher)
        same = found == case.bits and set(layers.bits) >= set(case.bits.items())
        return [] if same else [f"bits {found}, right are {dict(case.bits)}"]

    return _judge(case, folder, bit_problems)


def _judge(
    case: Case, folder: Path, run: Callable[[ConfigDict], list[str]]
) -> list[str]:
    problems: list[str] = []
    with _logged() as lines:
        try:
            config = command_config(case.recipe, case.build(folder))
            check(config)
            problems += run(config)
            refused = ""
        except UserError as error:
            refused = str(error)
    if bool(refused) != (case.outcome == "refused"):
        problems.append(f"refused: {refused}" if refused else "not refused")
    text = refused or "\n".join(lines)
    problems += [
        f"does not say {words!r}" for words in case.expected if words not in text
    ]
    problems += [f"says {words!r}" for words in case.forbidden if words in text]
    return problems


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Yields the list of messages that are logged in the context."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: Any) -> None:
            lines.append(record.getMessage())

    logger = absl_logging.get_absl_logger()
    handler, level = Keep(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

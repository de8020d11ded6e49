"""Checks a whole ACQ config; one message names all problems."""

from acq.tasks.rules import DIGITS_RULES, EVAL_RULES, RULES
from acq.tasks.settings import quantization_settings, teacher_settings
from acq.tasks.teacher_rules import RULES as TEACHER_RULES
from acq.tasks.teacher_rules import teacher_problems
from common import config as c
from common.config import ConfigDict


def check(config: ConfigDict) -> None:
    """Raises one error that names every problem of the config.

    Raises:
      UserError: a value is not accepted, or values do not fit together.
    """
    found = c.rule_problems(config, {**TEACHER_RULES, **DIGITS_RULES, **EVAL_RULES})
    if not found and config.teacher.source != "digits":
        found += teacher_problems(teacher_settings(config))
    c.refuse(found + quantization_problems(config))


def quantization_problems(config: ConfigDict) -> list[str]:
    """Lists the problems of quantizer, generator, student and training, a line each."""
    found = c.rule_problems(config, RULES)
    return found or quantization_settings(config).problems()

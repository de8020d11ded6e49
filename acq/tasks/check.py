"""Checks a whole ACQ config: every problem in one message."""

from acq.datasets.settings import RULES as EVAL_RULES
from acq.tasks import settings
from acq.teacher.opening import SOURCES
from acq.teacher.settings import RULES as TEACHER_RULES
from acq.teacher.settings import teacher_problems
from acq.teacher.training import RULES as DIGITS_RULES
from common import config as c
from common.config import ConfigDict

_SOURCE = {"teacher.source": c.one_of(*SOURCES)}


def check(config: ConfigDict) -> None:
    """Raises one error that names every problem of the config.

    Raises:
      UserError: it holds something that is not accepted.
    """
    found = c.rule_problems(
        config, {**_SOURCE, **TEACHER_RULES, **DIGITS_RULES, **EVAL_RULES}
    )
    if not found and config.teacher.source != "digits":
        found += teacher_problems(config)
    c.refuse(found + settings.problems(config))

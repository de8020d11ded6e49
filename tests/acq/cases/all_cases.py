"""All cases by group, each group with its judge."""

from collections.abc import Mapping

from tests.acq.cases.bits_cases import BITS_CASES
from tests.acq.cases.case import Case
from tests.acq.cases.image_cases import IMAGE_CASES
from tests.acq.cases.judging import Judge, judge_bits, judge_inputs, judge_teacher
from tests.acq.cases.network_cases import NETWORK_CASES
from tests.acq.cases.weights_cases import WEIGHTS_CASES

GROUPS: Mapping[str, tuple[Judge, tuple[Case, ...]]] = {
    "weights": (judge_teacher, WEIGHTS_CASES),
    "networks": (judge_inputs, NETWORK_CASES),
    "images": (judge_inputs, IMAGE_CASES),
    "bits": (judge_bits, BITS_CASES),
}

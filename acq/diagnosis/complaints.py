"""Describes problems of a generator's samples in sentences.

Each complaint says what was measured, what it means, and which key to change.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from acq.diagnosis.diagnosis import Diagnosis
from acq.training.step_parts import GeneratorLoss

LEAST_VARIETY = 0.1
"""In units of the distance of Gaussian noise. Real images of one class have distances
of 0.8 to 1.1 in CIFAR-10 and 0.4 to 0.6 in 8x8 digits, and samples of an untrained
generator 0.95 to 1."""
LEAST_RECOGNITION = 0.1
"""As a share of the way from chance to full recognition. On CIFAR-10, a hundred steps
of batch 64 give 0.09 for GDFQ's generator and 0.33 for one with norms by class. A
generator that is still below after its warm-up has not learnt its classes."""
LEAST_R2 = 0.1
"""Of the requested centres. A constant attention has at most 0, and one that moves
independently has less. With 320 samples, chance adds about 0.03."""
FOLLOWING = 0.3
"""From this slope of achieved over requested centres on, attention follows. A low R^2
then has another cause than a generator that ignores the centre."""
MANY_CLASSES = 100
"""Above this, a short run cannot learn its classes; the place of the limit between 10
and 1,000 was not measured. With 1,000 and 300 steps of batch 16, a class_weight of 1 in
place of 0.02 made the teacher unsure of every sample and cost EfficientNet-Lite0's
student 6 points (docs/acq.md, At ImageNet's scale)."""
MOST_NAMED = 10
"""Classes that one complaint names."""


def complaints(
    diagnosis: Diagnosis, loss: GeneratorLoss, *, settled: bool = True
) -> list[str]:
    """Returns sentences about every problem; [] if there is none.

    Args:
      diagnosis: of the generator's samples.
      loss: of the generator.
      settled: whether the generator had time to learn classes and centres. If not, only
        problems that more steps do not fix are reported.
    """
    if diagnosis.finite < 1:
        return [_not_finite(diagnosis)]
    found = [*_collapsed(diagnosis, loss)]
    if settled:
        found += [*_unrecognised(diagnosis, loss), *_unreached(diagnosis, loss)]
    return found


def _not_finite(diagnosis: Diagnosis) -> str:
    count = round((1 - diagnosis.finite) * diagnosis.count)
    return (
        f"{count} of {diagnosis.count} samples hold values that are no finite numbers: "
        "the generator has diverged and nothing can be learnt from it. Lower "
        "config.generator.learning_rate."
    )


def _collapsed(diagnosis: Diagnosis, loss: GeneratorLoss) -> Iterator[str]:
    """Yields the widest collapse: of all samples, of a class, or of a condition."""
    variety = diagnosis.variety
    advice = (
        f"Raise config.generator.pair_weight{_now(loss.pair_weight)}, or lower "
        "config.generator.learning_rate."
    )
    if variety.overall is not None and variety.overall < LEAST_VARIETY:
        yield (
            f"All samples are nearly equal: any two are {variety.overall:.1%} as far "
            f"apart as Gaussian noise (at least {LEAST_VARIETY:.0%} is expected). The "
            "generator has collapsed and makes the same image for every condition. "
            f"{advice}"
        )
        return
    # NaN, for a class that was not drawn twice, is never below the limit.
    alike = np.flatnonzero(variety.in_class < LEAST_VARIETY)
    if len(alike):
        found = np.max(variety.in_class[alike])
        yield (
            f"Samples of {_named(alike)} are nearly equal: two of a class are at most "
            f"{found:.1%} as far apart as Gaussian noise (at least {LEAST_VARIETY:.0%} "
            "is expected). The generator has collapsed there: neither latent nor "
            f"centre changes the image, and the student sees the same one again and "
            f"again. {advice}"
        )
    elif variety.in_pair is not None and variety.in_pair < LEAST_VARIETY:
        yield (
            "Samples of the same class and centre are nearly equal: they are "
            f"{variety.in_pair:.1%} as far apart as Gaussian noise (at least "
            f"{LEAST_VARIETY:.0%} is expected). The generator ignores its latent. "
            f"{advice}"
        )


def _unrecognised(diagnosis: Diagnosis, loss: GeneratorLoss) -> Iterator[str]:
    """Yields a complaint about all classes, or about classes without recognition."""
    classes, weight = len(diagnosis.drawn), "config.generator.class_weight"
    if classes > MANY_CLASSES:
        advice = (
            "Give the generator more steps (config.generator.warmup). With "
            f"{classes:,} classes a student also learns from samples that do not show "
            f"theirs; in a short run a higher {weight}{_now(loss.class_weight)} made "
            "it worse (docs/acq.md, At ImageNet's scale)."
        )
    else:
        advice = (
            f"Raise {weight}{_now(loss.class_weight)}, give the generator more steps "
            "(config.generator.warmup), or, if config.generator.label is 'product', "
            "try 'norm'."
        )
    chance = 1 / len(diagnosis.drawn)
    share = diagnosis.recognised_share
    if share < chance + LEAST_RECOGNITION * (1 - chance):
        yield (
            f"The teacher recognises {share:.1%} of the samples as the class they "
            f"were made for; a guess would be right for {chance:.1%}. The samples do "
            f"not show their classes. {advice}"
        )
        return
    dead = diagnosis.judged[diagnosis.recognised[diagnosis.judged] == 0]
    if len(dead):
        draws = int(np.sum(diagnosis.drawn[dead]))
        yield (
            f"The teacher recognises none of the {draws} samples of {_named(dead)}, "
            f"but {share:.1%} of all. The student gets no usable samples of these "
            f"classes. {advice}"
        )


def _unreached(diagnosis: Diagnosis, loss: GeneratorLoss) -> Iterator[str]:
    r2, slope = diagnosis.center_r2(), diagnosis.center_slope()
    if not loss.center_weight or r2 is None or slope is None or r2 >= LEAST_R2:
        return
    follows = slope >= FOLLOWING
    yield (
        f"Attention is not at the requested centres: R^2 of the achieved centres is "
        f"{r2:.2f} (1 is exact, 0 is no better than always the middle), and "
        f"they move by {slope:.2f} for each 1 requested, although "
        f"config.generator.center_weight is {loss.center_weight:g}. "
        + (
            "They follow, but miss by a lot: lower config.generator.reach, to centres "
            "that the teacher's features can show, or raise config.generator.power."
            if follows
            else "The generator ignores the centre, and the term only harms others: "
            "set config.generator.center to 'window' if it is 'latent', give it more "
            "steps (config.generator.warmup), or raise config.generator.center_weight; "
            "or set center_weight to 0."
        )
    )


def _now(weight: float | int) -> str:
    left_out = ", which leaves the term out" if not weight else ""
    return f" (now {weight:g}{left_out})"


def _named(classes: Int[np.ndarray, "k"]) -> str:
    """Returns 'class 3', 'classes 1, 4 and 7', or ten classes 'and 5 more'."""
    first = [str(k) for k in classes[:MOST_NAMED]]
    if len(classes) == 1:
        return f"class {first[0]}"
    if len(classes) > MOST_NAMED:
        return f"classes {', '.join(first)} and {len(classes) - MOST_NAMED} more"
    return f"classes {', '.join(first[:-1])} and {first[-1]}"

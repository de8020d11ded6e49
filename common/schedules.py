"""Learning-rate schedules: functions of the step, durations in steps."""

from collections.abc import Sequence

import optax

from common.errors import UserError

SCHEDULES = ("constant", "cosine", "step")


def create_schedule(
    name: str,
    *,
    peak: float | int,
    total_steps: int,
    warmup_steps: int = 0,
    final_fraction: float | int = 0.0,
    boundaries: Sequence[int] = (),
    factor: float | int = 0.1,
) -> optax.Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    Over the first `warmup_steps` the rate grows linearly: at step s it is
    peak * (s + 1) / (warmup_steps + 1). It is never zero, so no step is wasted. From
    step `warmup_steps` on:

    - 'constant': the rate is peak.
    - 'cosine': the rate falls over half a cosine from peak to peak * final_fraction at
      `total_steps`, and stays there.
    - 'step': the rate is peak, times `factor` from each step in `boundaries` on.

    Args:
      name: One of `SCHEDULES`.
      peak: Highest rate, > 0.
      total_steps: Steps of the whole training, with the warm-up.
      warmup_steps: In [0, total_steps).
      final_fraction: 'cosine' only, in [0, 1].
      boundaries: 'step' only, increasing, in (warmup_steps, total_steps).
      factor: 'step' only, > 0.

    Raises:
      UserError: Values are out of range; one message names them all.
    """
    problems = _problems(
        name, peak, total_steps, warmup_steps, final_fraction, list(boundaries), factor
    )
    if problems:
        raise UserError("learning-rate schedule: " + "; ".join(problems))
    match name:
        case "cosine":
            main = optax.cosine_decay_schedule(
                peak, total_steps - warmup_steps, alpha=final_fraction
            )
        case "step":
            main = optax.piecewise_constant_schedule(
                peak, {step - warmup_steps: factor for step in boundaries}
            )
        case _:
            main = optax.constant_schedule(peak)
    if not warmup_steps:
        return main
    rise = optax.linear_schedule(peak / (warmup_steps + 1), peak, warmup_steps)
    return optax.join_schedules([rise, main], [warmup_steps])


def _problems(
    name: str,
    peak: float,
    total_steps: int,
    warmup_steps: int,
    final_fraction: float,
    boundaries: list[int],
    factor: float,
) -> list[str]:
    """Lists the arguments of `create_schedule` that are out of range."""
    problems = []
    if name not in SCHEDULES:
        problems.append(f"no schedule is called {name!r}; accepted: {list(SCHEDULES)}")
    if not peak > 0:
        problems.append(f"peak must be > 0, got {peak}")
    if total_steps < 1:
        problems.append(f"total_steps must be >= 1, got {total_steps}")
    if not 0 <= warmup_steps < max(total_steps, 1):
        problems.append(
            f"warmup_steps must be in [0, total_steps={total_steps}), "
            f"got {warmup_steps}"
        )
    if not 0 <= final_fraction <= 1:
        problems.append(f"final_fraction must be in [0, 1], got {final_fraction}")
    if not factor > 0:
        problems.append(f"factor must be > 0, got {factor}")
    if name != "step" and boundaries:
        problems.append(f"boundaries {boundaries} belong to 'step', not {name!r}")
    elif name == "step" and not boundaries:
        problems.append("a step schedule needs boundaries, got none")
    elif name == "step" and not (
        boundaries == sorted(set(boundaries))
        and warmup_steps < boundaries[0]
        and boundaries[-1] < total_steps
    ):
        problems.append(
            f"boundaries must increase within ({warmup_steps}, {total_steps}), "
            f"got {boundaries}"
        )
    return problems

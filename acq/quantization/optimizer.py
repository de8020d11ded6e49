"""The optimisers of generator and student."""

import functools

import optax

from common.schedules import create_schedule


@functools.cache
def create_optimizer(
    name: str,
    schedule: str,
    rate: float,
    total: int,
    *,
    decay_at: tuple[int, ...],
    first_moment: float = 0.9,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns Adam or Nesterov's SGD; adds weight decay to the gradient as PyTorch.

    A 'step' schedule falls to a tenth at each of `decay_at`, in steps of this
    optimiser. Values up to 0 are from before its first step. Only the student's
    `params` decay: its ranges are no weights, and frozen ranges must not move.
    """
    boundaries = []
    if schedule == "step":
        rate *= 0.1 ** sum(step <= 0 for step in decay_at)
        boundaries = [step for step in decay_at if 0 < step < total]
        if not boundaries:
            schedule = "constant"  # the run ends before
    rates = create_schedule(
        schedule, peak=rate, total_steps=total, boundaries=boundaries
    )
    steps = (
        optax.adam(rates, b1=first_moment, b2=0.999)
        if name == "adam"
        else optax.sgd(rates, momentum=0.9, nesterov=True)
    )
    if not weight_decay:
        return steps
    decay = optax.add_decayed_weights(
        weight_decay, mask={"params": True, "ranges": False}
    )
    return optax.chain(decay, steps)

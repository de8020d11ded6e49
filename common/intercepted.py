"""The convolutions and normalisations of any flax network, met while it is applied.

A convolution is a module with a parameter `kernel` of four axes, the last of which are
its output channels, whose `__call__` takes the features first: those of `flax.linen`,
and most people's own. So a network can be changed, or marked, without a second copy of
its code.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax

Meet = Callable[[nn.Module, jax.Array], jax.Array]
"""From a module and its input to the input that it gets."""

See = Callable[[nn.Module, jax.Array], None]
"""Takes a module and its result."""

Answer = Callable[[nn.BatchNorm, jax.Array], jax.Array | None]
"""From a normalisation and its input to a result in its place; None: its own."""


def name_of(module: nn.Module) -> str:
    """Returns where a module is in its network, such as 'layer2/conv'."""
    return "/".join(module.path)


def is_convolution(module: nn.Module) -> bool:
    """Returns whether a bound module is a convolution, see above."""
    if not module.has_variable("params", "kernel"):
        return False
    kernel: Any = module.get_variable("params", "kernel")
    return kernel.ndim == 4


@contextlib.contextmanager
def intercepted(
    at_convolution: Meet | None = None,
    at_norm: Answer | None = None,
    after_convolution: See | None = None,
    before_norm: Meet | None = None,
) -> Iterator[None]:
    """Intercepts the modules of every network that is applied in the context.

    Args:
      at_convolution: gives each convolution another input.
      at_norm: answers in the place of each `flax.linen.BatchNorm`.
      after_convolution: sees the result of each convolution.
      before_norm: gives each `flax.linen.BatchNorm` another input, after `at_norm`.
    """

    def interceptor(
        apply: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return apply(*args, **kwargs)
        if at_norm is not None and isinstance(module, nn.BatchNorm):
            answer = at_norm(module, args[0])
            if answer is not None:
                return answer
        if before_norm is not None and isinstance(module, nn.BatchNorm):
            return apply(before_norm(module, args[0]), *args[1:], **kwargs)
        if not is_convolution(module):
            return apply(*args, **kwargs)
        x, *rest = args
        if at_convolution is not None:
            x = at_convolution(module, x)
        y = apply(x, *rest, **kwargs)
        if after_convolution is not None:
            after_convolution(module, y)
        return y

    with nn.intercept_methods(interceptor):
        yield

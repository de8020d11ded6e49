"""Removes the modules that wrap a network from the names of its tensors.

A module that contains all tensors of a file may only wrap the network: PyTorch's
DataParallel (`module.`), torch.compile, a Lightning module.
"""

from collections.abc import Iterable, Iterator

# How many wrapping modules are removed: more than in any real file.
_MOST_WRAPPERS = 4


def unwrapped(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yields the names, then the names inside each module that contains all of them.

    Each is a dict from the name in the file to the shorter one.
    """
    inner = {name: name for name in names}
    yield inner
    for _ in range(_MOST_WRAPPERS):
        parts = {name: rest.partition(".") for name, rest in inner.items()}
        if len({first for first, _, _ in parts.values()}) != 1:
            return
        inner = {name: rest for name, (_, _, rest) in parts.items()}
        if not all(inner.values()):
            return
        yield inner

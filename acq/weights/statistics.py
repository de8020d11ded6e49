"""Refuses batch normalisation that saw no data, because its statistics are the data.

New layers have a running mean of 0 and a variance of 1; training changes both. A file
with these values in every layer loads without an error, but holds no information about
images.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from common.errors import UserError

_Path = tuple[str, ...]


def check_statistics(
    found: Mapping[_Path, np.ndarray], names: Mapping[_Path, str], *, source: str
) -> None:
    """Checks that a network's running statistics are those of a trained network.

    Args:
      found: Variables by path; only those of `batch_stats` are checked.
      names: Name of each in the file.
      source: File of the variables, for the message.

    Raises:
      UserError: All means are 0 and all variances 1, or a layer's variances are all 0.
    """
    stats = {path: values for path, values in found.items() if path[0] == "batch_stats"}
    means = {path: values for path, values in stats.items() if path[-1] == "mean"}
    variances = {path: values for path, values in stats.items() if path[-1] == "var"}
    if dead := [path for path, values in variances.items() if not np.any(values)]:
        raise UserError(
            f"{source}: {_first(dead, names)}, variances of batch normalisation, are "
            f"all 0{_others(len(dead) - 1)}. An input that varies has no such "
            "variance: the file is damaged, or was saved in too narrow a dtype. "
            "Give the weights as they were trained, in float32."
        )
    is_new = all(not np.any(mean) for mean in means.values()) and all(
        np.all(variance == 1) for variance in variances.values()
    )
    if means and variances and is_new:
        raise UserError(
            f"{source}: batch normalisation that was never trained: "
            f"{_first(means, names)} is all 0 and {_first(variances, names)} all 1"
            f"{_others(len(variances) - 1)}. Likely the network was "
            "saved before its training, trained without running statistics "
            "(track_running_stats=False, or always in eval mode), or its batch "
            "normalisation was folded into the convolutions. These statistics replace "
            "the data: give the weights of a trained network with its statistics."
        )


def _first(paths: Iterable[_Path], names: Mapping[_Path, str]) -> str:
    return min(names[path] for path in paths)


def _others(count: int) -> str:
    return f", as in {count} other layers" if count > 0 else ""

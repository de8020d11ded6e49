"""The only module that uses pmap, devices and processes.

State is not stacked over devices: a step takes it with `in_axes=None` and returns it
with `out_axes=None`, so that it looks the same on one device and on many. The step must
`pmean` over `AXIS` all values that depend on its share of the batch.
`refuse_divergence` finds a step that does not.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from common.errors import UserError
from common.typing import Batch, Metrics, PyTree

AXIS = "batch"


def start_processes(coordinator: str, processes: int, process: int) -> None:
    """Joins this process to the others; does nothing in a run of one process.

    Args:
      coordinator: "host:port" of process 0; "" for one process; "auto" on clusters that
        provide it (TPU pods, Slurm).
      processes: their number; used only with a "host:port".
      process: number of this process, from 0.
    """
    if not coordinator:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(coordinator, processes, process)


def devices_in_words() -> str:
    """Returns number and kind of all devices, as "4 x cpu (cpu), 2 processes"."""
    count, processes = jax.device_count(), jax.process_count()
    kinds = sorted({device.device_kind for device in jax.devices()})
    words = f"{count} x {', '.join(kinds)} ({jax.default_backend()})"
    return words if processes == 1 else f"{words}, {processes} processes"


def is_first_process() -> bool:
    """Returns True in the process that writes and prints."""
    return jax.process_index() == 0


def is_single_process() -> bool:
    """Returns True unless the run has several processes."""
    return jax.process_count() == 1


def per_process(global_size: int, key: str) -> int:
    """Returns this process's share of a global batch.

    Args:
      global_size: examples over all devices of all processes.
      key: the config key, for the message.

    Raises:
      UserError: the size is not a multiple of the devices.
    """
    devices = jax.device_count()
    if global_size % devices:
        raise UserError(
            f"config.{key}: got {global_size}, accepted: a multiple of the {devices} "
            f"devices ({jax.process_count()} process(es) x {jax.local_device_count()})"
        )
    return global_size // jax.process_count()


def shard_batch(batch: Batch) -> PyTree:
    """Returns the batch with a leading axis of local devices.

    Args:
      batch: arrays `b ...`; b is this process's share of the global batch.

    Returns:
      Arrays `devices b/devices ...`.

    Raises:
      ValueError: leading sizes differ, or are not a multiple of the local devices.
    """
    devices = jax.local_device_count()
    sizes = {np.shape(leaf)[0] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or next(iter(sizes)) % devices:
        raise ValueError(
            f"leading sizes {sorted(sizes)}: must be one size, a multiple of {devices}"
        )
    return jax.tree.map(
        lambda leaf: np.reshape(leaf, (devices, -1, *np.shape(leaf)[1:])), dict(batch)
    )


def replicate(tree: PyTree) -> PyTree:
    """Returns the tree with a complete copy on every device, like `pmap_step`'s result.

    Such a state is donated without a copy. The step then compiles once, and not again
    after the first call.

    Args:
      tree: arrays, the same in every process.
    """
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(tree, everywhere)


@functools.cache
def pmap_step(
    step: Callable[[Any, Any], tuple[Any, Metrics]],
) -> Callable[[Any, Any], tuple[Any, Metrics]]:
    """Returns `step(state, shard) -> (state, metrics)` over all devices.

    Place the state with `replicate`. It is donated, so keep no reference to it. The
    same step gives the same function, so that it compiles once.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
    )


@functools.cache
def pmap_frozen_step(
    step: Callable[[Any, Any, Any], tuple[Any, Metrics]],
) -> Callable[[Any, Any, Any], tuple[Any, Metrics]]:
    """Returns `step(frozen, state, shard) -> (state, metrics)` over all devices.

    Like `pmap_step`, with an argument that is never donated: the variables of a
    teacher. Place it with `replicate` too.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=(None, None),
        donate_argnums=(1,),
    )


@functools.cache
def pmap_eval(apply: Callable[[Any, Any], PyTree]) -> Callable[[Any, Any], PyTree]:
    """Returns `apply(variables, shard)` over all devices, results along axis 0."""
    return jax.pmap(apply, axis_name=AXIS, in_axes=(None, 0), out_axes=0)


@functools.cache
def pmap_input(make: Callable[[Any], PyTree]) -> Callable[[Any], PyTree]:
    """Returns `make(shard)` over all devices, results sharded for `pmap_step`."""
    return jax.pmap(make, axis_name=AXIS)


def to_host(tree: PyTree) -> PyTree:
    """Returns the tree as NumPy arrays."""
    return jax.tree.map(np.asarray, jax.device_get(tree))


def refuse_divergence(tree: PyTree) -> None:
    """Checks that every leaf is bit-identical on all devices of this process.

    Raises:
      RuntimeError: leaves differ, because the step lacks a `pmean`; names them.
    """
    differing = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, jax.Array) or not leaf.is_fully_replicated:
            continue
        first, *others = [np.asarray(s.data).tobytes() for s in leaf.addressable_shards]
        if any(other != first for other in others):
            differing.append(jax.tree_util.keystr(path))
    if differing:
        raise RuntimeError(
            "devices hold different values of " + ", ".join(differing) + ": a step "
            f"must pmean over {AXIS!r} all values that depend on its share of the batch"
        )


def any_process(flag: bool) -> bool:
    """Returns whether `flag` is true in any process; all processes must call it."""
    if is_single_process():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def of_first_process(values: np.ndarray) -> np.ndarray:
    """Returns the first process's values; all processes must call it."""
    if is_single_process():
        return values
    return np.asarray(multihost_utils.broadcast_one_to_all(values))


def wait_for_all(name: str) -> None:
    """Waits until all processes have called this with the same `name`."""
    if not is_single_process():
        multihost_utils.sync_global_devices(name)

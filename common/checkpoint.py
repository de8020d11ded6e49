"""The one place that knows orbax: a run's checkpoints, and exported variables."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from common.devices import to_host
from common.errors import UserError
from common.files import write_atomically
from common.typing import PyTree

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run: state, place in the data, step.

    A checkpoint is either whole or not there: orbax writes to a temporary folder and
    renames it. The newest `keep` are preserved.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        """Opens, and where needed makes, `folder`."""
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(keep),
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the manager."""
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, data_state: dict[str, Any]) -> None:
        """Writes a checkpoint, unless one of this step is there.

        Args:
          step: steps done.
          state: pytree of arrays, the same in every process.
          data_state: what the data iterator's `get_state` gives in this process.
        """
        if step == self.latest_step:
            return
        items = {
            # As host arrays, which the first process writes: pmap's results are local
            # to a process, and orbax refuses those when there are several.
            "state": ocp.args.StandardSave(to_host(state)),
            # A process's place in the data follows from the step: one copy serves all.
            "data": ocp.args.JsonSave(data_state),
        }
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, like: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Reads the newest checkpoint.

        Args:
          like: a state with the shapes and types wanted.

        Returns:
          Step, state (NumPy arrays) and data state; None if there is no checkpoint.

        Raises:
          UserError: the checkpoint is damaged or of another network.
        """
        step = self.latest_step
        if step is None:
            return None
        folder = self._folder / str(step)
        _refuse_other_shapes(folder / "state", like)
        wanted = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        items = {
            "state": ocp.args.StandardRestore(wanted),
            "data": ocp.args.JsonRestore(),
        }
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            raise _damaged(folder, error) from error
        return step, found["state"], found["data"]


def export_variables(folder: Path, variables: PyTree, manifest: dict[str, Any]) -> None:
    """Writes variables without the optimiser, and what is needed to use them.

    Args:
      folder: made if it is not there; an export in it is replaced.
      variables: pytree of arrays.
      manifest: JSON-able description; read back by `load_manifest`.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / "variables", variables, force=True)
    # Last, so that a folder with a manifest is a whole export.
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def load_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an export.

    Raises:
      UserError: `folder` holds no whole export.
    """
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: no exported network here (no {MANIFEST}). Give the --workdir "
            "of a finished training run."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error


def load_variables(folder: Path, like: PyTree) -> PyTree:
    """Returns exported variables.

    Args:
      folder: of the export.
      like: pytree of arrays or shapes as `jax.eval_shape` gives them.

    Raises:
      UserError: missing, damaged, or of another network.
    """
    path = folder.absolute() / "variables"
    _refuse_other_shapes(path, like)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path, wanted)
    except (ValueError, KeyError, OSError) as error:
        raise _damaged(path, error) from error


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _refuse_other_shapes(path: Path, like: PyTree) -> None:
    """Raises if the arrays in `path` are not those of `like`, before any is read."""
    try:
        stored = _shapes(
            ocp.StandardCheckpointHandler().metadata(epath.Path(path)).tree
        )
    except (ValueError, KeyError, OSError) as error:
        raise _damaged(path, error) from error
    wanted = _shapes(like)
    lines = [
        f"  {name}: stored {stored.get(name, 'nothing')}, "
        f"this network has {wanted.get(name, 'nothing')}"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]
    if lines:
        more = [f"  and {len(lines) - 5} more"] if len(lines) > 5 else []
        raise UserError(
            f"{path}: these arrays are of another network:\n"
            + "\n".join(lines[:5] + more)
            + "\nUse the config they were trained with, or another --workdir."
        )


def _damaged(path: Path, error: BaseException) -> UserError:
    reason = str(error).strip().partition("\n")[0][:200]
    return UserError(
        f"{path}: missing or damaged ({reason}). Remove that folder (a run then goes "
        "on from the checkpoint before it), or give another --workdir."
    )

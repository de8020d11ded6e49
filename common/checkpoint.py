"""The only module that uses orbax: a run's checkpoints, and exported variables."""

import hashlib
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
from common.version import COMMIT, VERSION

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


class Checkpoints:
    """The checkpoints of one run: state, position in the data, step.

    A checkpoint is complete or does not exist: orbax writes to a temporary folder and
    renames it. The newest `keep` checkpoints stay.
    """

    def __init__(self, folder: Path, *, keep: int = 2, read_only: bool = False) -> None:
        """Opens `folder`, and makes it if it does not exist.

        Args:
          folder: of the checkpoints.
          keep: how many checkpoints stay.
          read_only: for the checkpoints of another run: makes and deletes nothing.
        """
        self._folder = folder.absolute()
        if read_only:
            options = ocp.CheckpointManagerOptions(
                read_only=True, save_interval_steps=0, create=False
            )
        else:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(keep),
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
            )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

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
        """Writes a checkpoint, unless this step has one.

        Args:
          step: steps done.
          state: pytree of arrays, the same in every process.
          data_state: result of the data iterator's `get_state` in this process.
        """
        if step == self.latest_step:
            return
        items = {
            # The first process writes host arrays: pmap's results are local to a
            # process, and orbax refuses such arrays if there are several processes.
            "state": ocp.args.StandardSave(to_host(state)),
            # The position in the data follows from the step: one copy serves all.
            "data": ocp.args.JsonSave(data_state),
        }
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, like: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Reads the newest checkpoint.

        Args:
          like: a state with the expected shapes and dtypes.

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
    """Writes an export: variables without the optimiser, and a manifest.

    Only one of several processes may call this.

    Args:
      folder: made if it does not exist; an export in it is replaced.
      variables: pytree of arrays.
      manifest: description for JSON; `load_manifest` reads it. The function adds
        `format_version` of the export's layout, `software_version`, `commit` (null if
        unknown), `sha256` (see `hash_variables`), and `files`, the SHA-256 of each file
        of the arrays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # First, so that the manifest of an older export never describes new arrays.
    (folder / MANIFEST).unlink(missing_ok=True)
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix="export"
    )
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save(folder.absolute() / "variables", variables, force=True)
    added = {
        "format_version": FORMAT_VERSION,
        "software_version": VERSION,
        "commit": COMMIT,
        "sha256": hash_variables(variables),
        "files": {
            path.relative_to(folder).as_posix(): _hash_file(path)
            for path in sorted((folder / "variables").rglob("*"))
            if path.is_file()
        },
    }
    # Last, so that a folder with a manifest is a complete export.
    write_atomically(folder / MANIFEST, json.dumps(manifest | added, indent=2) + "\n")


def hash_variables(variables: PyTree) -> str:
    """Returns the SHA-256 of names, dtypes, shapes and values, in the order of names.

    For each array it hashes the line `name dtype shape`, such as `params/conv1/kernel
    float32 3x3x1x64`, and then the array's bytes, little-endian and in C order.
    """
    total = hashlib.sha256()
    for name, leaf in sorted(_leaves(variables).items()):
        array = np.asarray(jax.device_get(leaf))
        shape = "x".join(map(str, array.shape))
        total.update(f"{name} {array.dtype.name} {shape}\n".encode())
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        total.update(little.tobytes())
    return total.hexdigest()


def load_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an export.

    Raises:
      UserError: `folder` holds no complete export, or one of another layout.
    """
    path = folder / MANIFEST
    export_again = "Export the network again (train to the end in another --workdir)"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{folder}: no exported network here (no {MANIFEST}). Give the --workdir "
            "of a finished training run."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not readable as JSON ({error}). Copy the folder again from its "
            f"source. {export_again}, if there is no other copy."
        ) from error
    kinds = {"format_version": int, "sha256": str, "files": dict}
    found = manifest if isinstance(manifest, dict) else {}
    lacking = [k for k, kind in kinds.items() if not isinstance(found.get(k), kind)]
    if lacking:
        raise UserError(
            f"{path}: lacks {', '.join(lacking)}: damaged, or written by an older "
            f"version of this software. {export_again}."
        )
    version = found["format_version"]
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {version}, written by version "
            f"{found.get('software_version')} of this software; this is {VERSION}, "
            f"which reads format versions up to {FORMAT_VERSION}. Update the software."
        )
    return found


def load_variables(folder: Path, like: PyTree) -> PyTree:
    """Returns exported variables, after a check of their hashes.

    Args:
      folder: of the export.
      like: pytree of arrays, or of shapes from `jax.eval_shape`.

    Raises:
      UserError: they are missing, damaged, or of another network.
    """
    manifest = load_manifest(folder)
    path = folder.absolute() / "variables"
    # Before orbax reads: on damage it also prints tracebacks of its other tasks.
    _refuse_damage(folder, manifest["files"])
    _refuse_other_shapes(path, like)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), like
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            variables = checkpointer.restore(path, wanted)
    except (ValueError, KeyError, OSError) as error:
        raise _damaged(path, error) from error
    found, expected = hash_variables(variables), manifest["sha256"]
    if found != expected:
        raise UserError(
            f"{folder / MANIFEST}: the arrays have SHA-256 {found[:12]}..., it says "
            f"{expected[:12]}... It is damaged, or of another export: copy the folder "
            "again from its source."
        )
    return variables


def _refuse_damage(folder: Path, files: dict[str, str]) -> None:
    """Raises UserError if a file of an export is missing or was changed."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            problem = "missing"
        elif _hash_file(path) != expected:
            problem = f"damaged: its SHA-256 is not the one in {MANIFEST}"
        else:
            continue
        raise UserError(
            f"{path}: {problem}. Copy the whole export again from its source, or train "
            "again in another --workdir."
        )


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _leaves(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in _leaves(tree).items()}


def _refuse_other_shapes(path: Path, like: PyTree) -> None:
    """Raises UserError if stored names or shapes differ from `like`; reads no array."""
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
        f"{path}: missing or damaged ({reason}). Remove that folder (a run then "
        "resumes from the checkpoint before it), or give another --workdir."
    )

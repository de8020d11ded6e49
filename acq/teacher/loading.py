"""Loads the float teacher from a file, an export or the hub."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from acq.classifier import Classifier, Record
from acq.models import options_of
from acq.teacher.advice import advice
from acq.teacher.own_network import check_network
from acq.teacher.settings import TeacherSettings, create_teacher, stated_record
from acq.teacher.stated import check_stated
from acq.weights.hub import HubFile, fetch, hash_weights
from acq.weights.names import naming_of, to_variables
from acq.weights.statistics import check_statistics
from common.checkpoint import MANIFEST, load_manifest, load_variables
from common.errors import UserError
from common.typing import PyTree
from common.weights.files import ACCEPTED, read_weights
from common.weights.other_kinds import weights_in


def load_teacher(settings: TeacherSettings) -> Classifier:
    """Returns the teacher that the settings describe.

    Its weights are `settings.weights`, or else the hub's file. A folder must be an
    export of this software. It describes its network completely, and the settings must
    not contradict it.

    Raises:
      UserError: There are no weights, they are of another network, or the network
        cannot be quantized.
    """
    if settings.weights and Path(settings.weights).is_dir():
        return _load_export(Path(settings.weights), settings)
    record = stated_record(settings)
    network = create_teacher(record)
    like = check_network(
        network, record.image_shape(1), record.classes, name=record.name
    )
    path = _weights_path(settings, like)
    record = dataclasses.replace(
        record, source=str(path), sha256=_weights_hash(path, settings)
    )
    tensors = read_weights(
        path, key=settings.weights_key, key_name="teacher.weights_key"
    )
    variables = to_variables(
        tensors,
        like,
        network=record.name,
        source=str(path),
        advise=lambda tensors: advice(tensors, settings),
    )
    _check_stride(path, naming_of(tensors, like), settings)
    hub_repo = "" if settings.weights else settings.hub_repo
    check_stated(path, record, hub_repo=hub_repo)
    return Classifier(network=network, variables=variables, record=record)


def _check_stride(path: Path, naming: str | None, settings: TeacherSettings) -> None:
    """Refuses names that two networks share, unless the config chooses one."""
    if naming != "pytorchcv ResNet" or settings.stride_in_first is not None:
        return
    if "stride_in_first" in options_of(settings.network_name):
        raise UserError(
            f"{path}: config.teacher.stride_in_first: needed: the names are "
            "pytorchcv's, which two networks share. Give "
            "--config.teacher.stride_in_first=True for its resnet50, whose strides are "
            "in the first 1x1 convolution, or =False for its resnet50b, whose strides "
            "are in the 3x3 one."
        )


def _weights_path(settings: TeacherSettings, like: PyTree) -> Path:
    """Returns the path of the file of weights; downloads it from the hub if necessary.

    Args:
      settings: Of the teacher.
      like: Its variables, which tell about how large a file is.
    """
    if settings.weights:
        return Path(settings.weights)
    if not settings.hub_repo:
        raise UserError(
            "config.teacher.weights: needed: the trained network to be quantized. "
            f"Accepted: {ACCEPTED}, or a folder that this software exported."
        )
    return fetch(
        HubFile(
            repo=settings.hub_repo,
            file=settings.hub_file,
            revision=settings.hub_revision,
            sha256=settings.sha256 or settings.hub_sha256,
            size=sum(4 * leaf.size for leaf in jax.tree.leaves(like)),
        )
    )


def _weights_hash(path: Path, settings: TeacherSettings) -> str:
    """Returns the file's SHA-256, after a comparison with the pinned hash."""
    if settings.weights or settings.sha256:
        return hash_weights(path, pinned=settings.sha256)
    return hash_weights(path, pinned=settings.hub_sha256, key="teacher.hub_sha256")


def load_export(folder: Path) -> Classifier:
    """Returns a classifier that this software exported.

    Raises:
      UserError: The folder holds no classifier, or a damaged one.
    """
    manifest = load_manifest(folder)
    found = manifest.get("classifier")
    if not isinstance(found, dict):
        raise UserError(
            f"{folder / MANIFEST}: not of a classifier. Give the folder `teacher` of a "
            f"run of acq, or a file of weights: {ACCEPTED}."
        )
    record = dataclasses.replace(
        Record.from_json(found), source=str(folder), sha256=manifest["sha256"]
    )
    network = create_teacher(record)
    like = check_network(
        network, record.image_shape(1), record.classes, name=record.name
    )
    variables = jax.device_get(load_variables(folder, like))
    return Classifier(network=network, variables=variables, record=record)


def _load_export(folder: Path, settings: TeacherSettings) -> Classifier:
    if not (folder / MANIFEST).exists() and (names := weights_in(folder)):
        raise UserError(
            f"{folder}: a folder that this software did not export. Give the file in "
            f"it: --config.teacher.weights={folder / names[0]}"
        )
    classifier = load_export(folder)
    found: dict[tuple[str, ...], np.ndarray] = dict(flatten_dict(classifier.variables))
    tensor_names = {path: "/".join(path) for path in found}
    check_statistics(found, tensor_names, source=str(folder))
    if differing := _differing(classifier.record, settings):
        raise UserError(
            f"{folder}: the config contradicts this export:\n  "
            + "\n  ".join(differing)
            + "\nLeave these keys at 0, '' or (), or give other weights."
        )
    return classifier


def _differing(record: Record, settings: TeacherSettings) -> list[str]:
    """Returns a line for each key of the config that contradicts an export's record."""
    configured = {
        "name": settings.network_name,
        "classes": settings.classes,
        "image_size": settings.image_size,
        "mean": settings.mean,
        "std": settings.std,
        "sha256": settings.sha256.lower(),
        "weights_key": settings.weights_key,
        **settings.options,
    }
    exported = {
        **record.options,
        **{key: getattr(record, key) for key in ("name", "classes", "image_size")},
        "mean": record.normalisation.mean,
        "std": record.normalisation.std,
        "sha256": record.sha256,
    }
    differing = [
        f"config.teacher.{key}: {value!r}, the export has {exported.get(key)!r}"
        for key, value in configured.items()
        if value and value != exported.get(key)
    ]
    # 0 and '' leave the other keys open, but False is a value of this key.
    if settings.stride_in_first is False and exported.get("stride_in_first"):
        differing.append("config.teacher.stride_in_first: False, the export has True")
    return differing

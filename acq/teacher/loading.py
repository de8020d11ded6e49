"""The float teacher that `config.teacher` describes: the network to be quantized."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from acq.classifier import Classifier, Record
from acq.models import options_of
from acq.teacher.advice import advice
from acq.teacher.own_network import check_network
from acq.teacher.settings import (
    config_record,
    create_teacher,
    network_name,
    network_options,
)
from acq.teacher.stated import check_stated
from acq.weights.files import ACCEPTED, read_weights
from acq.weights.hub import HubFile, fetch, hash_weights
from acq.weights.names import naming_of, to_variables
from acq.weights.other_kinds import weights_in
from acq.weights.statistics import check_statistics
from common.checkpoint import MANIFEST, load_manifest, load_variables
from common.config import ConfigDict
from common.errors import UserError


def load_teacher(config: ConfigDict) -> Classifier:
    """Returns the teacher of a checked config.

    Its weights are `config.teacher.weights`, or without it the hub's file. A folder is
    an export of ours and tells everything of its network; whatever the config sets
    must agree with it.

    Raises:
      UserError: There are no weights, or those of another network; the network cannot
        be quantized.
    """
    path = _weights_path(config)
    if path.is_dir():
        return _load_export(path, config)
    record = dataclasses.replace(
        config_record(config),
        source=str(path),
        sha256=_weights_hash(path, config),
    )
    network = create_teacher(record)
    like = check_network(
        network, record.image_shape(1), record.classes, name=record.name
    )
    tensors = read_weights(path)
    variables = to_variables(
        tensors,
        like,
        network=record.name,
        source=str(path),
        advise=lambda tensors: advice(tensors, config),
    )
    _check_stride(path, naming_of(tensors, like), config)
    hub_repo = "" if config.teacher.weights else config.teacher.hub_repo
    check_stated(path, record, hub_repo=hub_repo)
    return Classifier(network=network, variables=variables, record=record)


def _check_stride(path: Path, naming: str | None, config: ConfigDict) -> None:
    """Refuses names that two networks have, unless the config says which it is."""
    teacher = config.teacher
    if naming != "pytorchcv ResNet" or teacher.stride_in_first is not None:
        return
    if "stride_in_first" in options_of(network_name(config)):
        raise UserError(
            f"{path}: config.teacher.stride_in_first: needed: the names are "
            "pytorchcv's, which are the same for two networks. Give "
            "--config.teacher.stride_in_first=True for its resnet50, whose strides are "
            "in the first 1x1 convolution, or =False for its resnet50b, whose strides "
            "are in the 3x3 one."
        )


def _weights_path(config: ConfigDict) -> Path:
    teacher = config.teacher
    if teacher.weights:
        return Path(teacher.weights)
    if not teacher.hub_repo:
        raise UserError(
            "config.teacher.weights: needed: the trained network to be quantized. "
            f"Accepted: {ACCEPTED}, or a folder that this software exported."
        )
    return fetch(
        HubFile(
            repo=teacher.hub_repo,
            file=teacher.hub_file,
            revision=teacher.hub_revision,
        )
    )


def _weights_hash(path: Path, config: ConfigDict) -> str:
    """The file's SHA-256; the hub's own file is held to what the recipe knows of it."""
    teacher = config.teacher
    if teacher.weights or teacher.sha256:
        return hash_weights(path, pinned=teacher.sha256)
    return hash_weights(path, pinned=teacher.hub_sha256, key="teacher.hub_sha256")


def load_export(folder: Path) -> Classifier:
    """Returns a classifier that this software exported.

    Raises:
      UserError: The folder holds none, or it is damaged.
    """
    manifest = load_manifest(folder)
    found = manifest.get("classifier")
    if not isinstance(found, dict):
        raise UserError(
            f"{folder / MANIFEST}: not of a classifier. Give a folder `teacher` of a "
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


def _load_export(folder: Path, config: ConfigDict) -> Classifier:
    if not (folder / MANIFEST).exists() and (names := weights_in(folder)):
        raise UserError(
            f"{folder}: a folder that this software did not export. Give the file in "
            f"it: --config.teacher.weights={folder / names[0]}"
        )
    classifier = load_export(folder)
    found: dict[tuple[str, ...], np.ndarray] = dict(flatten_dict(classifier.variables))
    called = {path: "/".join(path) for path in found}
    check_statistics(found, called, source=str(folder))
    if differing := _differing(classifier.record, config):
        raise UserError(
            f"{folder}: the config says something else than this export:\n  "
            + "\n  ".join(differing)
            + "\nLeave these keys at 0, '' or (), or give other weights."
        )
    return classifier


def _differing(record: Record, config: ConfigDict) -> list[str]:
    """Lists what the config sets otherwise than an export's record, a line each."""
    teacher = config.teacher
    said = {
        "name": network_name(config),
        "classes": teacher.classes,
        "image_size": teacher.image_size,
        "mean": tuple(teacher.mean),
        "std": tuple(teacher.std),
        "sha256": teacher.sha256.lower(),
        **network_options(config),
    }
    known = {
        **record.options,
        **{key: getattr(record, key) for key in ("name", "classes", "image_size")},
        "mean": record.normalisation.mean,
        "std": record.normalisation.std,
        "sha256": record.sha256,
    }
    differing = [
        f"config.teacher.{key}: {value!r}, the export has {known.get(key)!r}"
        for key, value in said.items()
        if value and value != known.get(key)
    ]
    # False is an answer here, where 0 and '' leave other keys open.
    if teacher.stride_in_first is False and known.get("stride_in_first"):
        differing.append("config.teacher.stride_in_first: False, the export has True")
    return differing

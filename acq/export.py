"""A quantized network as it is exported: integers, scales, and what they belong to."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from acq.classifier import Classifier, Record
from acq.layers.bits import LayerBits
from acq.layers.integer import integer_layers, to_integers
from acq.tasks import settings
from acq.teacher.settings import create_teacher
from common.checkpoint import (
    MANIFEST,
    export_variables,
    load_manifest,
    load_variables,
)
from common.config import ConfigDict
from common.errors import UserError
from common.typing import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A network of integers.

    Attributes:
      network: takes (n, h, w, c), normalised; returns logits and features.
      variables: `integers`, `params` (biases and BatchNorm's) and `batch_stats`.
      record: of the classifier it was.
      manifest: of the export.
    """

    network: nn.Module
    variables: PyTree
    record: Record
    manifest: dict[str, Any]


def export_quantized(
    folder: Path,
    config: ConfigDict,
    teacher: Classifier,
    variables: PyTree,
    added: dict[str, Any],
) -> None:
    """Writes the student as integers.

    Args:
      folder: of the export.
      config: the run's.
      teacher: whose network the student is.
      variables: the student's: `params`, `batch_stats`, `ranges`.
      added: to the manifest.
    """
    student = teacher.with_layers(settings.quant_layers(config, teacher))
    image = jnp.zeros(teacher.record.image_shape(1))
    _, integers = to_integers(student, variables, image)
    manifest = {
        "method": "acq",
        "kind": "quantized",
        "classifier": teacher.record.to_json(),
        "quantizer": json.loads(config.quantizer.to_json_best_effort()),
        "layer_bits": settings.bits_by_layer(config, teacher),
    }
    export_variables(folder, jax.device_get(integers), manifest | added)


def load_quantized(folder: Path) -> Quantized:
    """Returns an exported network of integers, ready to be applied.

    Its logits are bit for bit those of the student that was exported.

    Raises:
      UserError: there is none, it is damaged, or something else was exported there.
    """
    manifest = load_manifest(folder)
    quantizer = manifest.get("quantizer")
    if manifest.get("kind") != "quantized" or not isinstance(quantizer, dict):
        raise UserError(
            f"{folder / MANIFEST}: not of a quantized network. Give the folder "
            "`export` of a finished run of acq's task quantize."
        )
    record = Record.from_json(manifest["classifier"])
    layers = dataclasses.replace(
        settings.uniform_layers(ConfigDict({"quantizer": quantizer})),
        bits=_stored_bits(manifest),
    )
    student = create_teacher(record).clone(layers=layers)
    network = student.clone(layers=integer_layers(layers))
    like = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct(record.image_shape(1), jnp.float32),
    )
    return Quantized(
        network=network,
        variables=load_variables(folder, like),
        record=record,
        manifest=manifest,
    )


def _stored_bits(manifest: dict[str, Any]) -> LayerBits:
    """Bits of every layer; () of an export from before layers could differ."""
    groups = manifest.get("layer_bits", {}).values()
    return tuple((name, bits) for group in groups for name, bits in group.items())

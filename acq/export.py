"""A quantized network: integers, scales, what they belong to; and as a folder."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from acq.accuracy import logits_of
from acq.classifier import Classifier, Normalisation, Record
from acq.layers.bits import LayerBits
from acq.layers.integer import integer_layers, to_integers
from acq.layers.quantized import QuantLayers
from acq.quantization.settings import QuantizationSettings, QuantizerSettings
from acq.quantization.student_layers import (
    bits_by_layer,
    quant_layers,
    uniform_layers,
)
from acq.teacher.settings import create_teacher
from common.checkpoint import (
    MANIFEST,
    export_variables,
    load_manifest,
    load_variables,
)
from common.errors import UserError
from common.typing import PyTree

# What the grids of all layers need to be known of.
_GRID_KEYS = (
    *("weight_bits", "activation_bits", "other_bits"),
    *("symmetric_weights", "gradient"),
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedNetwork:
    """A network of integers; a function from images to logits.

    Attributes:
      network: takes (n, h, w, c), normalised; returns logits and features.
      variables: `integers`, `params` (biases and BatchNorm's) and `batch_stats`.
      record: of the classifier it was.
      manifest: what else is known of it; an export's holds the hashes too.
    """

    network: nn.Module
    variables: PyTree
    record: Record
    manifest: dict[str, Any]

    def __call__(self, images: Any) -> Float[Array, "n k"]:
        """Returns the logits of images; compiled once for each of their shapes.

        Args:
          images: uint8, or floats in [0, 1]: (n, h, w, c) of the network's size,
            colours in the order that it was trained with. Not normalised.

        Raises:
          UserError: they are of another shape, type or range.
        """
        apply = _apply_to_images(self.network, self.record.normalisation)
        return apply(self.variables, _checked_images(images, self.record))

    def save(self, folder: str | Path) -> None:
        """Writes it to a folder, which `load_quantized` reads.

        Args:
          folder: made if it is not there; an export in it is replaced.

        Raises:
          UserError: an attribute of the network cannot be written.
        """
        _refuse_unwritable(self.record)
        export_variables(
            Path(folder), jax.device_get(self.variables), dict(self.manifest)
        )


def quantize_student(
    settings: QuantizationSettings, teacher: Classifier, variables: PyTree
) -> QuantizedNetwork:
    """Returns a trained student as integers.

    Its logits are bit for bit the student's.

    Args:
      settings: of the quantization.
      teacher: whose network the student is.
      variables: the student's: `params`, `batch_stats`, `ranges`.
    """
    student = teacher.with_layers(quant_layers(settings.quantizer, teacher))
    image = jnp.zeros(teacher.record.image_shape(1))
    network, integers = to_integers(student, variables, image)
    return QuantizedNetwork(
        network=network,
        variables=integers,
        record=teacher.record,
        manifest={
            "method": "acq",
            "kind": "quantized",
            "classifier": teacher.record.to_json(),
            "quantizer": settings.quantizer.to_json(),
            "layer_bits": bits_by_layer(settings.quantizer, teacher),
            "seed": settings.seed,
            "step": settings.train.steps,
        },
    )


def load_quantized(
    folder: str | Path, network: nn.Module | None = None
) -> QuantizedNetwork:
    """Returns an exported network of integers, ready to be applied.

    Its logits are bit for bit those of the student that was exported.

    Args:
      folder: of the export.
      network: the float network that was quantized; needed for one of your own that
        cannot be imported by its name.

    Raises:
      UserError: there is none, it is damaged, or something else was exported there.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    record, layers = _described(folder, manifest)
    layers = dataclasses.replace(layers, bits=_stored_bits(manifest))
    if network is None:
        network = create_teacher(record)
    integers = network.clone(layers=integer_layers(layers))
    like = jax.eval_shape(
        integers.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct(record.image_shape(1), jnp.float32),
    )
    return QuantizedNetwork(
        network=integers,
        variables=load_variables(folder, like),
        record=record,
        manifest=manifest,
    )


def _described(folder: Path, manifest: dict[str, Any]) -> tuple[Record, QuantLayers]:
    """The classifier that a manifest is of, and layers that all have the same bits."""
    quantizer = manifest.get("quantizer")
    if (
        manifest.get("kind") != "quantized"
        or not isinstance(quantizer, dict)
        or not set(_GRID_KEYS) <= quantizer.keys()
    ):
        raise UserError(
            f"{folder / MANIFEST}: not of a quantized network. Give the folder "
            "`export` of a finished run of acq's task quantize."
        )
    grids = {key: quantizer[key] for key in _GRID_KEYS}
    layers = uniform_layers(QuantizerSettings(**grids))
    return Record.from_json(manifest["classifier"]), layers


def _stored_bits(manifest: dict[str, Any]) -> LayerBits:
    """Bits of every layer; () of an export from before layers could differ."""
    groups = manifest.get("layer_bits", {}).values()
    return tuple((name, bits) for group in groups for name, bits in group.items())


@functools.cache
def _apply_to_images(
    network: nn.Module, normalisation: Normalisation
) -> Callable[[PyTree, Any], jax.Array]:
    """The jitted `apply(variables, images) -> logits`; one for the same network."""
    apply = logits_of(network)

    def apply_to_images(variables: PyTree, images: jax.Array) -> jax.Array:
        is_whole = images.dtype == jnp.uint8
        x = images.astype(jnp.float32) / (255.0 if is_whole else 1.0)
        return apply(variables, normalisation.normalise(x))

    return jax.jit(apply_to_images)


def _checked_images(images: Any, record: Record) -> Any:
    """Images as arrays, known to be what the network takes.

    Raises:
      UserError: they are not.
    """
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    wanted = record.image_shape(1)[1:]
    is_float = jnp.issubdtype(images.dtype, jnp.floating)
    if images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        words = ", ".join(map(str, ("n", *wanted)))
        raise UserError(
            f"images: got shape {images.shape}, accepted: ({words}), a batch of at "
            "least one image, channels last"
        )
    if images.dtype != jnp.uint8 and not is_float:
        raise UserError(
            f"images: got {images.dtype}, accepted: uint8, or floats in [0, 1]"
        )
    # Within a function that is being compiled, values are not known.
    if is_float and not isinstance(images, jax.core.Tracer):
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"images: got floats from {low:.4g} to {high:.4g}, accepted: from 0 to "
                "1, before mean and std, which are the network's own work; or uint8"
            )
    return images


def _refuse_unwritable(record: Record) -> None:
    """Raises UserError for attributes of a network that no manifest can hold."""
    simple = str | int | float | bool | None
    for key, value in record.options.items():
        members = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(member, simple) for member in members):
            raise UserError(
                f"{record.name}: its attribute {key} is {value!r}, which an export "
                "cannot hold. Accepted: numbers, texts and tuples of them; make it the "
                "default of a class of your own (acq/models/README.md)."
            )

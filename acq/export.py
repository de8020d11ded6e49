"""A quantized network of integers and scales, in memory and as an exported folder."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
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

DEPLOYMENT = "deployment"
"""Key of a manifest's section on files for other software."""

# Keys of a manifest about the network; the others are about the files that hold it.
_ABOUT = ("method", "kind", "classifier", "quantizer", "layer_bits", "seed", "step")
# Keys of a manifest's `quantizer` that define the grids.
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
      record: of the float classifier.
      manifest: describes the quantization; that of an export also holds hashes.
    """

    network: nn.Module
    variables: PyTree
    record: Record
    manifest: dict[str, Any]

    def __call__(self, images: Any) -> Float[Array, "n k"]:
        """Returns the logits of images; compiles once for each image shape.

        Args:
          images: uint8, or floats in [0, 1], not normalised: (n, h, w, c) of the
            network's size, with the colour order of its training.

        Raises:
          UserError: the images have another shape, type or range.
        """
        apply = _apply_to_images(self.network, self.record.normalisation)
        return apply(self.variables, checked_images(images, self.record))

    def save(self, folder: str | Path) -> None:
        """Writes the network to a folder, which `load_quantized` reads.

        Args:
          folder: made if it does not exist; an export in it is replaced.

        Raises:
          UserError: an attribute of the network cannot be written.
        """
        _refuse_unwritable(self.record)
        export_variables(
            Path(folder), jax.device_get(self.variables), about_network(self.manifest)
        )

    def save_onnx(self, path: str | Path, images: Any | None = None) -> None:
        """Writes the network as an ONNX file of integers, for other software.

        Args:
          path: of the file, which is replaced if it exists.
          images: as the network takes them. They give the ranges of tensors that it
            leaves float and integer kernels need quantized. A network that was
            quantized with `other_bits` needs none.

        Raises:
          UserError: onnx is not installed, images are missing or not accepted, the
            network has an operation that cannot be exported, or a folder has this path.
        """
        # Here, because it imports this module.
        from acq.deploy.in_memory import save_onnx

        save_onnx(self, _file(path), images)

    def save_packed(self, path: str | Path) -> None:
        """Writes the network as one file, its weights of few bits in few bits.

        Args:
          path: of the file, which is replaced if it exists; `acq.load_packed` reads it.

        Raises:
          UserError: an attribute of the network cannot be written, or a folder has
            this path.
        """
        from acq.deploy.packed import write_packed

        _refuse_unwritable(self.record)
        write_packed(self, _file(path))


def quantize_student(
    settings: QuantizationSettings, teacher: Classifier, variables: PyTree
) -> QuantizedNetwork:
    """Returns a trained student as integers.

    Its logits are bit for bit the student's.

    Args:
      settings: of the quantization.
      teacher: the float classifier; the student has its network.
      variables: the student's `params`, `batch_stats` and `ranges`.
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
    """Returns an exported network of integers.

    Its logits are bit for bit those of the exported student.

    Args:
      folder: of the export.
      network: the float network that was quantized; needed only if it cannot be
        imported by its name.

    Raises:
      UserError: the folder holds no export, a damaged one, or one of another kind.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    integers, like, record = described_network(folder / MANIFEST, manifest, network)
    return QuantizedNetwork(
        network=integers,
        variables=load_variables(folder, like),
        record=record,
        manifest=manifest,
    )


def described_network(
    path: Path, manifest: dict[str, Any], network: nn.Module | None
) -> tuple[nn.Module, PyTree, Record]:
    """Returns the network that a manifest describes, its variables' shapes, its record.

    Args:
      path: of the file with the manifest, for messages.
      manifest: of a quantized network.
      network: the float network; None for that of the name in the manifest.

    Raises:
      UserError: the manifest is of another kind.
    """
    record, layers = _described(path, manifest)
    layers = dataclasses.replace(layers, bits=_stored_bits(manifest))
    if network is None:
        network = create_teacher(record)
    integers = network.clone(layers=integer_layers(layers))
    image = jax.ShapeDtypeStruct(record.image_shape(1), jnp.float32)
    like = jax.eval_shape(integers.init, jax.random.key(0), image)
    return integers, like, record


def about_network(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a manifest says of the network, and not of files that hold it."""
    return {key: manifest[key] for key in _ABOUT if key in manifest}


def _described(path: Path, manifest: dict[str, Any]) -> tuple[Record, QuantLayers]:
    """Returns a manifest's classifier, and layers that all have the same bits."""
    quantizer = manifest.get("quantizer")
    if (
        manifest.get("kind") != "quantized"
        or not isinstance(quantizer, dict)
        or not set(_GRID_KEYS) <= quantizer.keys()
    ):
        raise UserError(
            f"{path}: not the manifest of a quantized network. Give the "
            "folder `export` of a finished run of acq's task quantize."
        )
    grids = {key: quantizer[key] for key in _GRID_KEYS}
    layers = uniform_layers(QuantizerSettings(**grids))
    return Record.from_json(manifest["classifier"]), layers


def _stored_bits(manifest: dict[str, Any]) -> LayerBits:
    """Returns the bits of every layer; () for old exports, whose layers are alike."""
    groups = manifest.get("layer_bits", {}).values()
    return tuple((name, bits) for group in groups for name, bits in group.items())


@functools.cache
def _apply_to_images(
    network: nn.Module, normalisation: Normalisation
) -> Callable[[PyTree, Any], jax.Array]:
    """Returns the jitted `apply(variables, images) -> logits`, one for each network."""
    apply = logits_of(network)

    def apply_to_images(variables: PyTree, images: jax.Array) -> jax.Array:
        return apply(variables, normalisation.normalise(as_floats(images)))

    return jax.jit(apply_to_images)


def as_floats(images: jax.Array) -> jax.Array:
    """Returns images, uint8 or floats in [0, 1], as float32 in [0, 1]."""
    is_whole = images.dtype == jnp.uint8
    return images.astype(jnp.float32) / (255.0 if is_whole else 1.0)


def checked_images(images: Any, record: Record) -> Any:
    """Returns the images as an array.

    Raises:
      UserError: the network does not take such images.
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
    # While a function is compiled, values are unknown.
    if is_float and not isinstance(images, jax.core.Tracer):
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"images: got floats from {low:.4g} to {high:.4g}, accepted: from 0 to "
                "1, without mean and std, which the network applies; or uint8"
            )
    return images


def _file(path: str | Path) -> Path:
    """Returns the path of a file to write.

    Raises:
      UserError: a folder is there.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder; give the path of a file in it")
    return path


def _refuse_unwritable(record: Record) -> None:
    """Raises UserError for attributes of a network that no manifest can hold."""
    simple = str | int | float | bool | None
    for key, value in record.options.items():
        members = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(member, simple) for member in members):
            raise UserError(
                f"{record.name}: its attribute {key} is {value!r}, which an export "
                "cannot hold. Accepted: numbers, texts and tuples of them. Make the "
                "value a default of your own class (acq/models/README.md)."
            )

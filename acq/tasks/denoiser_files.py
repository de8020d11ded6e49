"""The files of a quantized network from images to images; task export of its recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from acq.denoisers.bits import NetworkBits, convolutions_of
from acq.denoisers.rounding import roundings_of
from acq.tasks.denoiser_settings import DenoiserTaskSettings, denoiser_settings
from common.checkpoint import load_manifest, load_variables
from common.config import ConfigDict
from common.devices import is_first_process
from common.errors import UserError
from common.image_network import ImageNetwork, Quantized
from common.onnx.package import require_onnx
from common.own_code import import_own_module
from common.typing import PyTree
from common.workdir import hold_workdir

NAME = "model.onnx"
FLOAT_NAME = "model_float.onnx"


def open_network(settings: DenoiserTaskSettings) -> ImageNetwork:
    """Returns the network that the config's function opens.

    Raises:
      UserError: there is no such function, or it cannot open the network.
    """
    module, _, name = settings.opener.partition(":")
    found = getattr(import_own_module(module, "config.teacher.open"), name, None)
    if not callable(found):
        raise UserError(
            f"config.teacher.open: {module} has no function {name!r}; accepted: one "
            "that returns a common.image_network.ImageNetwork"
        )
    return found(settings.export, **settings.options)


def network_bits(settings: DenoiserTaskSettings, names: tuple[str, ...]) -> NetworkBits:
    """Returns the bits that the settings give to the convolutions of these names."""
    return NetworkBits(
        weight_bits=settings.weight_bits,
        activation_bits=settings.activation_bits,
        first_last_bits=settings.first_last_bits,
        names=names,
    )


def write_files(
    network: ImageNetwork,
    bits: NetworkBits,
    variables: PyTree,
    description: Mapping[str, Any],
    folder: Path,
) -> None:
    """Writes the network of integers and the float one as ONNX files.

    Args:
      network: the float one.
      bits: of its convolutions.
      variables: as `acq.denoisers.rounding.settled` returns them, with `ranges`.
      description: what the file says of its quantization.
      folder: of the files.
    """
    roundings = roundings_of(variables["ranges"], bits)
    rounded = {name: leaf for name, leaf in variables.items() if name != "ranges"}
    network.write(Quantized(rounded, roundings, description), folder / NAME)
    network.write(None, folder / FLOAT_NAME)


def export_denoiser(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Writes the ONNX files of a finished run beside its export.

    Returns:
      What the manifest says of the quantization.

    Raises:
      UserError: onnx is not installed, there is no export, or it is of another network.
    """
    settings = denoiser_settings(config)
    require_onnx()
    with hold_workdir(workdir, "task export"):
        folder = workdir / "export"
        manifest = load_manifest(folder)
        description = manifest.get("quantized")
        network = open_network(settings)
        # As the manifest holds it.
        teacher = json.loads(json.dumps(dict(network.identity)))
        if description is None or manifest.get("teacher") != teacher:
            raise UserError(
                f"{folder}: it is not the quantized network of "
                f"config.teacher.export={settings.export!r}; accepted: the command of "
                "the run, with --task export"
            )
        convolutions = convolutions_of(network, settings.quantization.image_size)
        bits = network_bits(settings, tuple(found.name for found in convolutions))
        variables = load_variables(folder, _shapes(network, bits))
        if is_first_process():
            write_files(network, bits, variables, description, folder)
            logging.info("%s: %s, %s", folder, NAME, FLOAT_NAME)
    return description


def _shapes(network: ImageNetwork, bits: NetworkBits) -> PyTree:
    """Returns the shapes of the exported variables."""
    number = jax.ShapeDtypeStruct((), np.float32)
    kernels: dict[str, Any] = dict(flatten_dict(network.variables["params"], sep="/"))
    ranges = {}
    for name in bits.names:
        channels = jax.ShapeDtypeStruct(
            kernels[f"{name}/kernel"].shape[-1:], np.float32
        )
        ranges |= {f"{name}/low": number, f"{name}/high": number}
        ranges[f"{name}/end"] = channels
    return {**network.variables, "ranges": unflatten_dict(ranges, sep="/")}

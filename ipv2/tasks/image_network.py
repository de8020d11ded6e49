"""A denoiser's export as the network that another method may see."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from common.checkpoint import hash_variables
from common.errors import UserError
from common.image_network import ImageNetwork, Quantized
from common.version import VERSION
from ipv2.deploy.onnx_file import save_onnx
from ipv2.inference.trained import Trained, find_export, load_trained
from ipv2.kernels.photon_noise import DoseParams
from ipv2.models import unit_to_hu
from ipv2.tasks.held_out import doubt, trained_splits
from ipv2.tasks.judged_images import KINDS, ImageData, Judge, image_patches
from ipv2.training.denoiser import Flow
from ipv2.training.denoiser_spec import DenoiserSpec

# Images in network units: from air to dense bone, HU / 1000.
_LOW, _HIGH = -1.0, 2.0
# What scanners store in 12 bits.
_STORED = (-1.024, 3.071)
_NORMAL = DoseParams(dose=0.02)


def open_denoiser(export: str, **options: Any) -> ImageNetwork:
    """Returns the denoiser of an export, or of a run that has one.

    Args:
      export: folder.
      **options: `cache`, `embedded`, `size` and `limit` of `ImageData`.

    Raises:
      UserError: there is no export, it is damaged, its network is a flow, or its
        training held no slice of a data set out.
    """
    if not export:
        raise UserError(
            "config.teacher.export: got '', accepted: the folder of an export, or of a "
            "training run (configs/ipv2_batch_norm.py)"
        )
    return _opened(load_trained(find_export(export)), export, options)


def untrained_denoiser(export: str, **options: Any) -> ImageNetwork:
    """Returns a tiny denoiser with random weights, to try a recipe with.

    Args:
      export: ignored.
      **options: as `open_denoiser`.
    """
    del export
    spec = DenoiserSpec(name="dncnn", attributes={"width": 4, "depth": 3})
    variables = spec.create().init(jax.random.key(0))
    manifest = {
        **spec.to_json(),
        "datasets": [],
        "sha256": hash_variables(variables),
        "software_version": VERSION,
    }
    trained = Trained(
        spec=spec, denoiser=spec.create(), variables=variables, manifest=manifest
    )
    return _opened(trained, "untrained", options)


def _opened(trained: Trained, export: str, options: dict[str, Any]) -> ImageNetwork:
    if isinstance(trained.denoiser, Flow):
        raise UserError(
            f"{export}: {trained.name} is a flow, which applies its network once for "
            "each step of a sampler; accepted: a network that denoises in one call"
        )
    options["cache"] = Path(options.get("cache") or "runs/datasets")
    if "embedded" in options:
        options["embedded"] = tuple(options["embedded"])
    data = ImageData(
        splits=trained_splits(trained.manifest, export),
        noise=_noise_of(trained),
        channels=trained.slices,
        **options,
    )
    for name in data.embedded:
        if not data.splits.holds_out(name):
            raise UserError(
                f"config.judge.embedded: got {data.embedded}, but the training of "
                f"{export} held no slice of {name} out; accepted: data of which it did"
            )
    if warning := doubt(trained.manifest, export):
        logging.warning("%s", warning)
    judge = Judge(data)
    # For one device, and without recomputation: steps bring their own axis.
    module = trained.denoiser.model.clone(**_plain(trained))

    def write(quantized: Quantized | None, path: Path) -> None:
        save_onnx(trained, path, quantized)

    return ImageNetwork(
        name=trained.name,
        module=module,
        variables=trained.variables,
        channels=trained.slices,
        low=_LOW,
        high=_HIGH,
        stored=_STORED,
        multiple=math.lcm(trained.stride, 4),
        identity=trained.identity,
        images=functools.partial(image_patches, data),
        kinds={
            kind: words
            for kind, words in KINDS.items()
            if kind != "real" or "sample_ct" in data.embedded
        },
        judge=judge,
        warnings=(warning,) if warning else (),
        views=judge.views,
        to_hu=lambda unit: np.asarray(unit_to_hu(jnp.asarray(unit))),
        write=write,
    )


def _plain(trained: Trained) -> dict[str, Any]:
    """Returns the attributes of a network for one device."""
    names = {field.name for field in dataclasses.fields(trained.denoiser.model)}
    wanted = {"axis_name": None, "remat": False}
    return {key: value for key, value in wanted.items() if key in names}


def _noise_of(trained: Trained) -> DoseParams:
    """Returns the dose that the network was evaluated at; a usual one if unknown."""
    noise = trained.manifest.get("trained_with", {}).get("noise", {})
    names = {field.name for field in dataclasses.fields(DoseParams)}
    found = {key: value for key, value in noise.items() if key in names}
    if not found:
        return _NORMAL
    found["window"] = tuple(found.get("window", ()))
    for key in ("views", "source_distance_mm"):
        found[key] = found.get(key) or None
    return DoseParams(**found)

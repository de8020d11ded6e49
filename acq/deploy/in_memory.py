"""A quantized network as one ONNX file, without a run and its folder."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from acq.deploy.integer_ready import make_integer_ready
from acq.deploy.network_graph import integer_graph
from acq.deploy.onnx_file import write_onnx
from acq.export import QuantizedNetwork, as_floats, checked_images
from common.onnx.package import require_onnx


def save_onnx(small: QuantizedNetwork, path: Path, images: Any | None = None) -> None:
    """Writes a quantized network as an ONNX file of integers.

    Args:
      small: the network.
      path: of the file, which is replaced if it exists.
      images: as the network takes them; see `QuantizedNetwork.save_onnx`.

    Raises:
      UserError: onnx is not installed, images are missing or not accepted, or the
        network has an operation that cannot be exported.
    """
    require_onnx()
    batches = None
    if images is not None:
        x = as_floats(jnp.asarray(checked_images(images, small.record)))
        batches = [small.record.normalisation.normalise(x)]
    ready = make_integer_ready(small, batches).network
    write_onnx(integer_graph(ready), ready.record, path)

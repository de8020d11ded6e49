"""Writes the network of a run as an ONNX file, beside the run's export."""

from pathlib import Path

from common.devices import is_first_process
from common.onnx.package import require_onnx
from common.workdir import hold_workdir
from ipv2.deploy.onnx_file import NAME, save_onnx
from ipv2.inference.trained import load_trained


def export_onnx(workdir: Path) -> None:
    """Writes `workdir/export/model.onnx` from `workdir/export`.

    Args:
      workdir: the folder of a finished training run.

    Raises:
      UserError: onnx is not installed, the export is damaged, or its network cannot be
        an ONNX file.
    """
    require_onnx()
    if not is_first_process():
        return
    path = workdir / "export" / NAME
    with hold_workdir(workdir, "task export"):
        trained = load_trained(workdir / "export")
        found = save_onnx(trained, path)
    side = found.least_side
    sizes = (
        f"{side} x {side} pixels"
        if found.fixed
        else f"any multiples of {found.stride} pixels from {side} on"
    )
    print(
        f"{path.stat().st_size:,} bytes in {path}: {found.network}, (n, "
        f"{found.slices}, height, width) HU to HU, {sizes}"
    )

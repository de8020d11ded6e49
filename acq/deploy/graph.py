"""The graph of a classifier, with the layers of integers in it."""

from acq.deploy.folding import Kernel
from acq.deploy.values import Affine
from common.onnx.graph import Graph

INPUT, OUTPUT = "images", "logits"


class ClassifierGraph(Graph):
    """Operations and constants from `images` to `logits`.

    Attributes:
      kernels: the convolutions and dense layers of integers, as they were folded.
    """

    def __init__(self) -> None:
        """Starts empty."""
        super().__init__(INPUT, OUTPUT)
        self.kernels: list[tuple[Affine, Kernel]] = []

    @property
    def saturating(self) -> list[str]:
        """Layers that x86 processors without VNNI may compute wrongly."""
        return [value.layer.name for value, kernel in self.kernels if kernel.saturates]

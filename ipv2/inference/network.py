"""What denoises volumes: an exported network, in JAX or in another runtime."""

from typing import Any, Protocol, runtime_checkable

from ipv2.inference.apply import BatchApplier
from ipv2.inference.tiling import Tiling


@runtime_checkable
class Network(Protocol):
    """A trained network, with its description.

    Attributes:
      manifest: of its export.
    """

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of its export."""
        ...

    @property
    def name(self) -> str:
        """Name of the network, such as 'redcnn'."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 that says which network it is."""
        ...

    @property
    def slices(self) -> int:
        """How many neighbouring slices it takes."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the results, as JSON."""
        ...

    def describe(self) -> str:
        """Describes the network in words, for people and DICOM headers."""
        ...

    def tiling(self, *, tile: int, overlap: int, section: str = "") -> Tiling:
        """Returns how images are cut for it, see `create_tiling`."""
        ...

    def applier(self, *, batch_size: int, tiling: Tiling) -> BatchApplier:
        """Returns what applies it to the slices of volumes."""
        ...

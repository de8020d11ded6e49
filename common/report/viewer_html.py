"""Writes viewers of slices as HTML; `slice_viewer.js` shows them."""

import dataclasses
import json
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Int16

from common.report.hu_images import packed
from common.report.parts import ViewedSlice, Viewer


@dataclasses.dataclass(frozen=True)
class PackedSlice:
    """A slice as a page carries it.

    Attributes:
      label: names the slice in messages.
      index: what the viewer says about the slice, as JSON.
      images: elements with the pixels, in the order of the panels.
    """

    label: str
    index: str
    images: str


@dataclasses.dataclass
class PackedViewer:
    """A viewer as a page carries it.

    Attributes:
      title: above the viewer.
      note: below the viewer.
      slices: those that the page carries.
      left_out: labels of those that it does not carry, in the order of the slider.
    """

    title: str
    note: str
    slices: list[PackedSlice]
    left_out: list[str] = dataclasses.field(default_factory=list)

    def size(self) -> int:
        """Returns the characters of the slices."""
        return sum(len(packed.images) + len(packed.index) for packed in self.slices)

    def leave_out_last(self) -> None:
        """Takes the last slice off the page."""
        self.left_out.insert(0, self.slices.pop().label)


def packed_viewer(viewer: Viewer) -> PackedViewer:
    """Returns a viewer with its slices packed.

    Raises:
      ValueError: A slice has no image, its images differ in size, or `reference` or
        `facts` name an image that it lacks.
    """
    slices = [_packed_slice(viewed) for viewed in viewer.slices]
    return PackedViewer(viewer.title, viewer.note, slices)


def leave_out(viewers: Sequence[PackedViewer], size: int) -> None:
    """Takes slices off a page until it has fewer characters by a number.

    It takes the last slice of the viewer that has the most characters.

    Args:
      viewers: all of the page.
      size: characters to save; if there are not so many, no slice is left.
    """
    goal = sum(viewer.size() for viewer in viewers) - size
    while sum(v.size() for v in viewers) > goal and any(v.slices for v in viewers):
        max(viewers, key=PackedViewer.size).leave_out_last()


def viewer_html(viewer: PackedViewer) -> str:
    """Returns a viewer with its data, and says what was left out."""
    notes = [viewer.note] if viewer.note else []
    if viewer.left_out:
        names = ", ".join(viewer.left_out)
        notes.append(f"Left out, because the page would be too large: {names}.")
    if not viewer.slices:
        notes.append("There is no slice to show.")
    shown = f'<p class="note">{escape(" ".join(notes))}</p>\n' if notes else ""
    title = f"<figcaption><h3>{escape(viewer.title)}</h3></figcaption>"
    return f'<figure class="viewer">\n{title}\n{_slices(viewer)}{shown}</figure>\n'


def _slices(viewer: PackedViewer) -> str:
    if not viewer.slices:
        return ""
    index = ",\n".join(packed.index for packed in viewer.slices)
    return (
        '<div class="slices"><noscript>JavaScript shows the slices.</noscript></div>\n'
        f'<script class="index" type="application/json">[{index}]</script>\n'
        + "".join(packed.images for packed in viewer.slices)
    )


def _packed_slice(viewed: ViewedSlice) -> PackedSlice:
    shapes = {image.shape for image in viewed.images.values()}
    if len(shapes) != 1:
        raise ValueError(
            f"slice {viewed.name!r}: got images of the sizes {sorted(shapes)}, "
            "accepted: images of one size, at least one"
        )
    named = {viewed.reference} - {""} | set(viewed.facts)
    if unknown := sorted(named - set(viewed.images)):
        raise ValueError(
            f"slice {viewed.name!r}: got facts or a reference for "
            f"{', '.join(unknown)}, accepted: {', '.join(viewed.images)}"
        )
    ((height, width),) = shapes
    index = {
        "name": viewed.name,
        "role": viewed.role,
        "height": height,
        "width": width,
        "pixelMm": viewed.pixel_mm,
        "reference": viewed.reference,
        "images": [
            {"name": name, "facts": viewed.facts.get(name, "")}
            for name in viewed.images
        ],
    }
    return PackedSlice(
        label=f"{viewed.name} ({viewed.role})" if viewed.role else viewed.name,
        # A script ends at the first "</script", so no "<" is left.
        index=json.dumps(index).replace("<", "\\u003c"),
        images="".join(map(_image, viewed.images.values())),
    )


def _image(image: Int16[np.ndarray, "h w"]) -> str:
    kind = "application/octet-stream;base64"
    return f'<script class="image" type="{kind}">{packed(image)}</script>\n'

"""Which labelled images a run is evaluated on."""

import dataclasses
from collections.abc import Mapping

SPLITS: Mapping[str, str] = {
    "cifar10": "test",
    "cifar100": "test",
    "imagenet2012": "validation",
}
"""Datasets by TFDS's name, and the split that is evaluated on by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalDataSettings:
    """The images and labels to evaluate on; `config.eval` in messages.

    Attributes:
      path: an .npz with `images` (uint8 `n h w c`) and `labels`; a folder with a
        subfolder of images a class; or a dataset that TFDS prepared, as its folder.
      dataset: without a path: digits, cifar10, cifar100, imagenet2012; '' for none.
      split: of a dataset of TFDS; '': test, or imagenet2012's validation.
      classes: of a folder: a text file with the classes' subfolders, a line each, in
        the order of the logits; '': by number if all are numbers, else by name.
      resize: of files: share of the short side that the crop keeps, 0.875 for 224 of
        256; 0: images have the teacher's size.
      interpolation: of resizing: one of `decoding.INTERPOLATIONS`.
      limit: images, evenly of every class; 0: all.
      batch_size: images at once, over all devices.
      cache: folder of downloads; '' for TFDS's own (`config.data.cache`).
    """

    path: str = ""
    dataset: str = ""
    split: str = ""
    classes: str = ""
    resize: float | int = 0.0
    interpolation: str = "bilinear"
    limit: int = 0
    batch_size: int = 250
    cache: str = ""

"""Settings of the labelled images for the evaluation of a run."""

import dataclasses
from collections.abc import Mapping

SPLITS: Mapping[str, str] = {
    "cifar10": "test",
    "cifar100": "test",
    "imagenet2012": "validation",
}
"""Datasets by TFDS's name, and their default split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalDataSettings:
    """The images and labels to evaluate on; `config.eval` in messages.

    Attributes:
      path: an .npz with `images` (uint8 `n h w c`) and `labels`; a folder with a
        subfolder of images for each class; or the folder of a dataset that TFDS
        prepared.
      dataset: used if path is '': digits, cifar10, cifar100, imagenet2012; '' for none.
      split: of a dataset of TFDS; '': test, or validation of imagenet2012.
      classes: for a folder: a text file with the subfolder of one class per line, in
        the order of the logits; '': by number if all are numbers, else by name.
      resize: for files: share of the short side that the crop keeps, 0.875 for 224 of
        256; 0: images have the teacher's size.
      interpolation: for resizing: one of `decoding.INTERPOLATIONS`.
      limit: number of images, evenly of every class; 0: all.
      batch_size: images at once, over all devices.
      cache: folder of downloads; '' for that of TFDS (`config.data.cache`).
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

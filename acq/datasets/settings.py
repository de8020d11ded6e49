"""What `config.eval` may hold: the images and labels that a run is evaluated on.

path           an .npz with `images` (uint8 `n h w c`) and `labels`; a folder with a
subfolder of images a class; or a dataset that TFDS prepared, as its
folder
dataset        without a path: digits, cifar10, cifar100, imagenet2012
split          of a dataset of TFDS; '': test, or imagenet2012's validation
classes        of a folder: a text file with the classes' subfolders, a line each, in
the order of the logits; '': by number if all are numbers, else by name
resize         of files: share of the short side that the crop keeps, 0.875 for 224
of 256; 0: images have the teacher's size
interpolation  of resizing
limit          images, evenly of every class; 0: all
batch_size     images at once, over all devices
"""

from acq.datasets.decoding import INTERPOLATIONS
from common import config as c

SPLITS = {"cifar10": "test", "cifar100": "test", "imagenet2012": "validation"}
"""Datasets by TFDS's name, and the split that is evaluated on by default."""

RULES = {
    "eval.path": c.existing_path(),
    "eval.dataset": c.one_of("", "digits", *SPLITS),
    "eval.split": c.text(),
    "eval.classes": c.existing_path(),
    "eval.resize": c.number(at_least=0, at_most=1),
    "eval.interpolation": c.one_of(*INTERPOLATIONS),
    "eval.limit": c.whole(0),
    "eval.batch_size": c.whole(1),
}
"""What each key of `config.eval` accepts."""

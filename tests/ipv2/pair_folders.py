"""Folders of small pairs of random values, and a config that trains on them."""

import numpy as np
import PIL.Image

from configs import ipv2_redcnn
from ipv2 import ct_io


def config_of(tmp_path, **changes):
    """A quick config on tmp_path/root; `data__split=...` changes config.data.split."""
    config = ipv2_redcnn.get_config("smoke")
    config.data.root = str(tmp_path / "root")
    config.data.cache = str(tmp_path / "cache")
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


def write_pair(root, patient, *, size=16, count=2, seed=0):
    """Writes root/lq/PATIENT/scan.nii and its partner."""
    rng = np.random.default_rng(seed)
    gt = rng.integers(-1000, 400, (count, size, size)).astype(np.float32)
    lq = gt + np.rint(rng.normal(0, 40, gt.shape)).astype(np.float32)
    for side, hu in (("lq", lq), ("gt", gt)):
        volume = ct_io.Volume(hu=hu, spacing_mm=(2.0, 0.8, 0.8), integer=True)
        path = root / side / patient / "scan.nii"
        ct_io.write_volume(volume, path, overwrite=True)


def write_pairs(root, patients, **options):
    """Writes a pair for each patient, each with values of its own."""
    for patient in patients:
        write_pair(root, patient, seed=sum(patient.encode()), **options)


def write_png(root, patient, *, size=16, count=2):
    """Writes slices without a spacing."""
    rng = np.random.default_rng(0)
    for side in ("lq", "gt"):
        (root / side / patient).mkdir(parents=True)
        for index in range(count):
            grey = rng.integers(0, 256, (size, size), np.uint8)
            PIL.Image.fromarray(grey).save(root / side / patient / f"{index}.png")

"""Scores lung masks on images that break the published flood fill: a table.

    python -m tests.benchmarks.lung_masks [CACHE] [--images phantom sample_ct]
        [--size 512] [--smoke]

The images are the phantom, whose lungs are known, and the sample CT, which is fetched
into CACHE (default: runs/datasets) and whose reference is
`tests.oracles.lung_reference`; both clean and at a physical 2 % dose. The columns are
false lung in % of all pixels, mean over slices and worst slice, and lost lung in % of
the lung. Large vessels and airways in the lung count as neither. Rows "in 3-D" have the
masks of whole volumes, the others those of single slices.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from skimage import morphology

from common.dataset import load_split
from ipv2 import phantom
from ipv2.datasets.sample_ct import SampleCt
from ipv2.kernels.photon_noise import DoseParams, simulate_low_dose
from ipv2.purification.anatomy import AnatomyParams, segment
from tests.benchmarks.shared.arguments import create_parser, parse
from tests.oracles.lung_reference import lung_reference

BATCH = 8
WINDOW_HU = (-160, 240)
IMAGES = ("phantom", "sample_ct")


def main(command_line: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = create_parser(__doc__)
    parser.add_argument("cache", nargs="?", default="runs/datasets")
    parser.add_argument("--images", nargs="+", choices=IMAGES, default=IMAGES)
    parser.add_argument("--size", type=int, default=512, help="pixels of the phantom")
    parser.add_argument("--slices", type=int, default=16, help="of each phantom")
    smoke = ["--images=phantom", "--size=128", "--slices=4"]
    options = parse(parser, command_line, smoke)
    made = []
    if "phantom" in options.images:
        made.append(_phantom(options.size, options.slices))
    if "sample_ct" in options.images:
        made.append(_sample_ct(options.cache))
    head = f"{'lung masks, robust':52s} {'false mean':>10s} {'worst':>6s} {'lost':>6s}"
    print(head)
    for name, volumes, hu, lung, spacing_mm in made:
        noisy = _low_dose(hu, spacing_mm)
        for dose, image in (("clean", hu), ("2 % dose", noisy)):
            deep = np.concatenate([_deep(part) for part in np.split(image, volumes)])
            _print_row(f"{name}, {dose}, as it is, in 3-D", deep, lung)
            for case, broken, truth in _failures(image, lung, is_clean=image is hu):
                _print_row(f"{name}, {dose}, {case}", _flat(broken), truth)


def _failures(hu, lung, *, is_clean):
    """Yields (name, image, truth) of every case of the table."""
    size = hu.shape[-1]
    yield "as it is", hu, lung
    marked = hu.copy()
    marked[:, size // 100 : size // 9, size // 100 : size // 4] = 1000
    marked[:, : size // 80, : size // 80] = 1000
    yield "corner mark", marked, lung
    line = hu.copy()
    line[:, round(0.92 * size) : round(0.92 * size) + 3] = 300
    yield "table line across", line, lung
    columns = np.flatnonzero(lung.any((0, 1)))
    sides = slice(max(columns[0] - 12, 0), columns[-1] + 13)
    yield "body touches both sides", hu[..., sides].copy(), lung[..., sides]
    if not is_clean:  # the other cases add their noise
        return
    rng = np.random.default_rng(0)
    window = np.clip(hu + rng.normal(0, 250, hu.shape), *WINDOW_HU)
    yield "soft-tissue window, 250 HU noise", window.astype(np.float32), lung
    yield "thin wall, 250 HU noise", *_thin_wall(hu, lung, rng)


def _thin_wall(hu, lung, rng):
    """Cuts the body 6 pixels outside the lungs' hull in each slice and adds noise."""
    thin = hu.copy()
    for slice_, mask in zip(thin, lung, strict=True):
        if mask.sum() > 500:
            span = morphology.convex_hull_image(mask)
            slice_[~ndimage.binary_dilation(span, iterations=6)] = -1000
    return (thin + rng.normal(0, 250, hu.shape)).astype(np.float32), lung


def _flat(hu):
    """Lungs of single slices."""
    batches = [jnp.asarray(hu[i : i + BATCH]) for i in range(0, len(hu), BATCH)]
    return np.concatenate([np.asarray(segment(batch).lung) for batch in batches])


def _deep(hu):
    """Lungs of a volume."""
    return np.asarray(segment(jnp.asarray(hu), AnatomyParams(volume=True)).lung)


def _print_row(name, found, lung):
    # A vessel that a lung encloses in its slice is not false lung.
    near = np.stack([ndimage.binary_fill_holes(m) for m in lung])
    near = ndimage.binary_dilation(near, ndimage.generate_binary_structure(3, 1)[1:2])
    false = 100 * (found & ~near).mean((1, 2))
    lost = 100 * (lung & ~found).sum() / lung.sum()
    print(f"{name:52s} {false.mean():10.3f} {false.max():6.2f} {lost:6.2f}")


def _low_dose(hu, spacing_mm):
    params = DoseParams(dose=0.02)
    keys = jax.random.split(jax.random.key(0), len(hu))
    parts = [
        simulate_low_dose(
            keys[i : i + BATCH], jnp.asarray(hu[i : i + BATCH]), spacing_mm, params
        )
        for i in range(0, len(hu), BATCH)
    ]
    return np.concatenate(parts)


def _phantom(size, slices):
    patients = []
    for seed in range(2):
        patient = phantom.create_patient(seed)
        breath, _ = phantom.create_breaths(seed)
        positions = phantom.slice_positions(patient, slices)
        patients.append(phantom.render(patient, breath, positions, size=size))
    hu = np.concatenate([np.asarray(p.hu, np.float32) for p in patients])
    lung = np.concatenate([np.asarray(p.lung) for p in patients])
    # Slices are 400 mm across.
    lung = lung & (hu < -500)
    return "phantom", len(patients), hu, lung, 400 / size


def _sample_ct(cache):
    source = load_split(SampleCt(data_dir=cache), "train")
    records = [source[i] for i in range(len(source))]
    hu = np.stack([record["hu"] for record in records]).astype(np.float32)
    lung = lung_reference(hu)
    spacing_mm = float(records[0]["spacing_mm"][0])
    return "sample CT", 1, hu, lung, spacing_mm


if __name__ == "__main__":
    main()

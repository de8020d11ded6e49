"""Small results made by hand, as evaluations make them."""

import numpy as np

from ipv2.measures.full_measures import REMOVED
from ipv2.measures.summary import summary_block
from ipv2.measures.tissues import TISSUES
from ipv2.tasks.result_files import SCHEMA_VERSION

WINDOWS = ("lung", "soft_tissue", "full")
REGIONS = ("background", "lung", "body")


def numbers(psnr, *, bias=None, aligned=True, lung=True, value=0.5, made=True):
    """An image's numbers: the slices' PSNR is that of the list; `bias` by tissue."""
    psnr = np.array(psnr, np.float64)

    def leaf(number):
        return np.full(len(psnr), number, np.float64)

    known = {"background": 1.0, "lung": 2.0 if lung else np.nan, "body": value}
    keys = ["bias_hu", "noise_sd_hu"] + ["local_noise_sd_hu"] * aligned
    found = {
        "psnr_db": {window: psnr for window in WINDOWS},
        "regions": {r: {key: leaf(known[r]) for key in keys} for r in REGIONS},
        "rmse_hu": {window: 100 - psnr for window in WINDOWS},
        **{
            name: {window: leaf(value) for window in WINDOWS}
            for name in ("ssim", "mae_hu", "gmsd", "ms_ssim", "vif")
        },
        "vif_ldct_benchmark": leaf(value),
        "noise_index_hu": leaf(value),
    }
    if not aligned:
        return found
    bias = {tissue: 1.0 for tissue in TISSUES} | (bias or {})
    rises = {"rise_mm": leaf(1.5), "truth_rise_mm": leaf(1.25)}
    removed = {"removed": {name: leaf(0.01) for name in REMOVED}} if made else {}
    return found | {
        "tissues": {
            tissue: {"bias_hu": leaf(hu), "noise_sd_hu": leaf(30.0)}
            for tissue, hu in bias.items()
        },
        "dense_foci": {"mean_kept": leaf(0.9), "peak_kept": leaf(0.8)},
        "slopes": {"vessels": leaf(0.8), "pleura": leaf(0.9)},
        "edge_rises": {"vessels": rises, "pleura": rises},
        "contour_mm": leaf(0.25),
        "error_frequencies": {"peak_per_mm": leaf(0.1), "mean_per_mm": leaf(0.2)},
        **removed,
    }


def undefined(tree):
    """The same numbers, none of them defined."""
    if isinstance(tree, dict):
        return {key: undefined(value) for key, value in tree.items()}
    return np.full_like(tree, np.nan)


def dataset(images, *, label="truth", patients=None, name="ct"):
    """A block and the rows of its slices, from numbers by image."""
    count = len(images["input"]["psnr_db"]["lung"])
    patients = patients or ["p"] * count
    block = {
        "label": label,
        "noise": "sd of the difference",
        **summary_block(images, patients),
    }
    if label in ("truth", "gt"):
        spectrum = {"frequency_per_mm": [0.1, 0.2], "power_hu2_mm2": [5.0, 3.0], "n": 2}
        block["error_nps"] = {image: dict(spectrum) for image in images}
    rows = [
        {"dataset": name, "patient": patient, "name": patient, "slice": index}
        | {image: one_slice(tree, index) for image, tree in images.items()}
        for index, patient in enumerate(patients)
    ]
    return block, rows


def one_slice(tree, index):
    if isinstance(tree, dict):
        return {key: one_slice(value, index) for key, value in tree.items()}
    return float(tree[index]) if np.isfinite(tree[index]) else None


def results(**datasets):
    """Results of a run from (block, rows) by data set."""
    return {
        "schema_version": SCHEMA_VERSION,
        "n_slices": sum(len(rows) for _, rows in datasets.values()),
        "datasets": {name: block for name, (block, _) in datasets.items()},
        "slices": [row for _, rows in datasets.values() for row in rows],
        "dataset_names": list(datasets),
        "seed": 0,
    }


NOTHING = results()


def of_psnr(*, patients=None, label="truth", bias=None, **images):
    """Results of the data set `ct`: `tv=[20.0, 21.0]` is an image's PSNR by slice."""
    aligned = label in ("truth", "gt")
    made = {
        image: numbers(
            psnr,
            aligned=aligned,
            bias=bias if image == "output" else None,
            made=image != "input",
        )
        for image, psnr in images.items()
    }
    return results(ct=dataset(made, label=label, patients=patients))


def nodule(value=2.0):
    """What is kept of a kind of nodule."""
    ends = {"low": None, "high": None} if value is None else {"low": 1.5, "high": 2.5}
    return {
        "count": 8,
        "contrast_kept": {"mean": value, "sd": 0.1, "n": 8, **ends},
        "density_error_hu": {"mean": value, "sd": 0.1, "n": 8, **ends},
        **dict.fromkeys(
            ("diameter_error_mm", "diameter_low_mm", "diameter_high_mm"), value
        ),
        "d_prime": {"value": value, **ends, "present": 8, "absent": 8},
        "equivalent_dose": {
            **{"dose": None, "low": 0.0, "high": None},
            "note": "not reached at the highest dose, 1",
        },
    }


def detail(value=2.0, images=("input", "tv", "output")):
    """A data set's part of `detail`."""
    kinds = ("6 mm of -100 HU", "10 mm of 100 HU", "4 mm of 100 HU")
    return {
        **{"dose": 0.02, "doses": [0.02, 0.1, 1.0]},
        "observer": "knows the background",
        **{"n_slices": 4, "n_patients": 1, "interval_over": "slices"},
        "nodules": {
            "lung": {image: {k: nodule(value) for k in kinds} for image in images}
        },
        **{
            name: {
                "lung": {
                    kind: {key: [value] * 3 for key in ("value", "low", "high")}
                    for kind in kinds
                }
            }
            for name in ("undenoised", *(["denoised"] if "output" in images else []))
        },
    }


def distances():
    """A block's `distances` of one extractor."""
    kid = {"value": 0.1, "low": 0.05, "high": 0.2}
    one = {
        **{"window": "lung", "images": 4, "features": 2, "fid": 3.0},
        **{"fid_held_out": None, "fid_floor": None, "kid": kid, "kid_held_out": None},
        **{"kid_floor": {"value": None, "low": None, "high": None}, "note": "few"},
    }
    return {"bands": {image: dict(one) for image in ("input", "tv", "output")}}

"""Tables of `detail` and `distances`, which config.evaluate asks for by name."""

from collections.abc import Mapping
from typing import Any

from common.text_table import format_table
from ipv2.tasks.table_rows import sample_text, wrapped


def detail_tables(dataset: str, block: Mapping[str, Any], head: str) -> list[str]:
    """Returns what is kept of nodules, a table for each tissue.

    Args:
      dataset: name of the data set.
      block: its part of the key `detail` of results.
      head: what titles begin with.
    """
    return [
        _detail_table(tissue, images, block, f"{head}: {dataset}".removeprefix(": "))
        for tissue, images in block["nodules"].items()
    ]


def _detail_table(
    tissue: str,
    images: Mapping[str, Mapping[str, Any]],
    block: Mapping[str, Any],
    head: str,
) -> str:
    rows = [
        [kind, name, *_detail_cells(kinds[kind])]
        for kind in next(iter(images.values()))
        for name, kinds in images.items()
    ]
    header = [
        *("nodule", "image", "n", "contrast\nkept", "95 %\ninterval"),
        *("density\nHU", "diameter\nmm", "d'", "95 %\ninterval", "worth\ndose"),
    ]
    title = (
        f"{head}: nodules in {tissue}, {sample_text(block)}, at a dose of "
        f"{block['dose']:g}: share of contrast, errors of density and diameter; "
        f"d' of an observer who {block['observer']}; the dose whose scan shows a "
        "nodule as well"
    )
    digits = [0, 0, 0, 2, 0, 1, 2, 1, 0, 0]
    return format_table(header, rows, digits=digits, title=wrapped(title))


def _detail_cells(one: Mapping[str, Any]) -> list[Any]:
    contrast, seen, worth = (
        one[key] for key in ("contrast_kept", "d_prime", "equivalent_dose")
    )
    return [
        one["count"],
        contrast["mean"],
        _span(contrast, 2),
        one["density_error_hu"]["mean"],
        one["diameter_error_mm"],
        seen["value"],
        _span(seen, 1),
        _dose(worth),
    ]


def _dose(worth: Mapping[str, Any]) -> str:
    if worth["dose"] is not None:
        return f"{worth['dose']:.3g}"
    if worth["note"].startswith("not reached"):
        return "more"
    return "less" if worth["note"].startswith("reached") else "-"


def _span(one: Mapping[str, Any], digits: int) -> str:
    if one["low"] is None or one["high"] is None:
        return "-"
    return f"{one['low']:.{digits}f}..{one['high']:.{digits}f}"


def distances_tables(block: Mapping[str, Any], head: str) -> list[str]:
    """Returns FID and KID of a data set, a table for each extractor of features."""
    header = [
        *("image", "slices", "FID", "FID\nheld out", "FID\nfloor", "KID"),
        *("95 %\ninterval", "KID\nheld out", "KID\nfloor"),
    ]
    tables = []
    for extractor, images in block.get("distances", {}).items():
        rows = [
            [
                *(image, one["images"], one["fid"], one["fid_held_out"]),
                *(one["fid_floor"], one["kid"]["value"], _span(one["kid"], 4)),
                *(one["kid_held_out"], one["kid_floor"]["value"]),
            ]
            for image, one in images.items()
        ]
        title = (
            f"{head}: distances of {extractor} from {block['label']} in the lung "
            "window; held out: from that of the other half of the patients, to be "
            "compared with the floor, which a perfect image reaches"
        )
        digits = [0, 0, 2, 2, 2, 4, 0, 4, 4]
        tables.append(format_table(header, rows, digits=digits, title=wrapped(title)))
    return tables

"""The report of finished runs that were compared slice by slice."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from common.report.parts import Column, Estimate, Measure, Report, Section, Table
from ipv2.report.about import About, composed
from ipv2.report.glossary import MEASURES
from ipv2.report.verdict import paired_verdict, sample_words

_MEASURE = Column("measure")
_PAIRED_COLUMNS = (
    *(Column("first", digits=4), Column("other", digits=4)),
    *(Column("other less first", digits=4), Column("slices", digits=0)),
)
# What the first table shows of the paired measures.
_PAIRED = (
    *("psnr_db.lung", "psnr_db.soft_tissue", "ssim.lung", "rmse_hu.full"),
    *(f"tissues.{tissue}.bias_hu" for tissue in ("bone", "soft", "lung")),
    *("slopes.vessels", "contour_mm"),
)
# The measure that a key of results belongs to, by the key's first word or its last.
_OF_KEY = {
    "psnr_db": "PSNR",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "rmse_hu": "RMSE",
    "mae_hu": "MAE",
    "gmsd": "GMSD",
    "vif": "VIF",
    "vif_ldct_benchmark": "VIF of ldct-benchmark",
    "noise_index_hu": "noise index",
    "bias_hu": "bias",
    "noise_sd_hu": "noise",
    "local_noise_sd_hu": "local noise",
    "dense_foci": "dense foci",
    "slopes": "slope",
    "edge_rises": "rise",
    "contour_mm": "outline",
    "error_frequencies": "error frequency",
    "removed": "removed edges",
}


def paired_report(compared: Mapping[str, Any], about: About) -> Report:
    """Returns the report of finished runs that were paired slice by slice.

    Args:
      compared: the content of `paired.json`.
      about: what to say beside the numbers.
    """
    headline, sections = [], []
    for dataset, block in compared["datasets"].items():
        for run, measures in block["runs"].items():
            headline += [
                [dataset, run, name, *_paired_cells(measures[name])]
                for name in _PAIRED
                if name in measures
            ]
            table = Table(
                title=f"All measures: {run} less {compared['first']}",
                columns=[_MEASURE, *_PAIRED_COLUMNS],
                rows=[[name, *_paired_cells(one)] for name, one in measures.items()],
            )
            title = f"{dataset} against {block['label']}: {sample_words(block)}, {run}"
            sections.append(Section(title, [table]))
    over = sorted({one["interval_over"] for one in compared["datasets"].values()})
    table = Table(
        title=f"Differences from {compared['first']}, slice by slice",
        columns=[Column("data set"), Column("run"), _MEASURE, *_PAIRED_COLUMNS],
        rows=headline,
        note="Means over the slices that both runs have a number of. 95 % intervals "
        f"over {' or '.join(over)}; of many measures one in 20 excludes 0 by chance.",
    )
    report = composed(
        about, verdict=paired_verdict(compared), headline=table, sections=sections
    )
    return dataclasses.replace(report, glossary=_glossary_of_keys(compared))


def _paired_cells(one: Mapping[str, Any]) -> list[Any]:
    low, high = one["interval"] or (None, None)
    known = one["difference"] is not None
    difference = Estimate(one["difference"], low, high, one["n"]) if known else None
    return [one["first"], one["other"], difference, one["n"]]


def _glossary_of_keys(compared: Mapping[str, Any]) -> list[Measure]:
    """Returns the measures of all keys, in the glossary's order."""
    keys = {
        word
        for block in compared["datasets"].values()
        for measures in block["runs"].values()
        for key in measures
        for word in key.split(".")
    }
    named = {_OF_KEY[key] for key in keys if key in _OF_KEY}
    return [one for name, one in MEASURES.items() if name in named]

"""Tables of all that finished evaluations measure beside the main tables."""

from collections.abc import Sequence

from ipv2.measures.evaluation import INPUT
from ipv2.measures.metrics import WINDOWS
from ipv2.measures.perceptual import LDCT_BENCHMARK
from ipv2.tasks.table_rows import Column, Rows, means_table

_SHORT = {"lung": "lung", "soft_tissue": "soft", "full": "full"}


def _by_window(heading: str, key: str, digits: int) -> list[Column]:
    return [(f"{heading}\n{_SHORT[w]}", (key, w), digits) for w in WINDOWS]


_QUALITY: Sequence[Column] = [
    *_by_window("PSNR dB", "psnr_db", 2),
    *_by_window("SSIM", "ssim", 4),
    *_by_window("RMSE HU", "rmse_hu", 1),
    *_by_window("MAE HU", "mae_hu", 1),
]
_PERCEPTUAL: Sequence[Column] = [
    *_by_window("GMSD", "gmsd", 4),
    *_by_window("MS-SSIM", "ms_ssim", 4),
    *_by_window("VIF", "vif", 4),
    ("VIF of\nldct-benchmark", ("vif_ldct_benchmark",), 4),
    ("noise index\nHU", ("noise_index_hu",), 1),
]
_RISES: Sequence[Column] = [
    (f"{edge}\n{title}", ("edge_rises", edge, key), 2)
    for edge in ("vessels", "pleura")
    for title, key in (("rise mm", "rise_mm"), ("reference's", "truth_rise_mm"))
]
_REMOVED: Sequence[Column] = [
    ("share of\nslope", ("removed", "slope_share"), 4),
    ("correlation\n", ("removed", "correlation"), 4),
    ("by chance\n", ("removed", "correlation_by_chance"), 4),
    ("of magnitudes\n", ("removed", "magnitude_correlation"), 4),
    ("by chance\n", ("removed", "magnitude_correlation_by_chance"), 4),
    ("share of\ntiles", ("removed", "tiles_share"), 4),
]


def further_tables(rows: Rows, head: str) -> list[str]:
    """Returns the tables of `full_measures`; [] where they were not taken.

    Args:
      rows: images of a data set.
      head: what titles begin with.
    """
    if not all("mae_hu" in row.mean for row in rows.values()):
        return []
    windows = ", ".join(
        f"{_SHORT[name]} {one.low_hu:g}..{one.high_hu:g}"
        for name, one in WINDOWS.items()
    )
    tables = [
        means_table(
            rows,
            _QUALITY,
            f"{head}: by window, means; windows, which are the data range: {windows} "
            "HU; SSIM of 11 x 11 pixels, sigma 1.5",
        ),
        means_table(
            rows,
            _PERCEPTUAL,
            f"{head}: by window, means; VIF for an observer whose noise has a variance "
            "of 2 of 255^2 grey levels; of ldct-benchmark: of 2 HU^2, "
            f"{LDCT_BENCHMARK.low_hu:g}..{LDCT_BENCHMARK.high_hu:g} HU",
        ),
    ]
    if all("edge_rises" in row.mean for row in rows.values()):
        title = f"{head}: 10-90 % rise of edges, of the image and of the reference"
        tables.append(means_table(rows, _RISES, title))
    made = {name: row for name, row in rows.items() if name != INPUT}
    if made and all("removed" in row.mean for row in made.values()):
        title = (
            f"{head}: edges of the reference in what was removed, input - image; noise "
            "alone has a correlation as by chance, and 0.001 of the tiles"
        )
        tables.append(means_table(made, _REMOVED, title))
    return tables

"""Every measure of a report in two lines: what it means, and what is good.

docs/evaluation.md has the formulas and their sources.
"""

from collections.abc import Iterable

from common.report.parts import Measure, Table

_MEASURES = (
    Measure(
        "PSNR",
        "The window's width over the RMSE of image and reference, in dB, both clipped "
        "to the window.",
        "Higher is better; 6 dB is half the error. Blur raises it too, and numbers of "
        "different windows do not compare.",
    ),
    Measure(
        "SSIM",
        "Likeness of local means, contrasts and structures in a window, at most 1.",
        "Higher is better; most of a slice is air, so a small lesion hardly counts.",
    ),
    Measure(
        "MS-SSIM",
        "SSIM over five scales, from fine to coarse, at most 1.",
        "Higher is better; coarse scales hide noise.",
    ),
    Measure(
        "RMSE",
        "Root mean square of image - reference in a window, in HU.",
        "0 is best; it does not know noise from blur.",
    ),
    Measure(
        "MAE",
        "Mean of |image - reference| in a window, in HU.",
        "0 is best; it does not know noise from blur.",
    ),
    Measure(
        "GMSD",
        "How unevenly edges differ from the reference's, in a window.",
        "0 is best; an even error costs nothing.",
    ),
    Measure(
        "VIF",
        "Share of the reference's visible information that the image holds.",
        "1 is as much as the reference; added contrast scores above 1.",
    ),
    Measure(
        "VIF of ldct-benchmark",
        "VIF on HU from -1024 to 1900, as ldct-benchmark takes it.",
        "Higher is better; it compares with that benchmark alone.",
    ),
    Measure(
        "noise index",
        "The most frequent standard deviation within 15 x 15 pixels of soft tissue, in "
        "HU, of the image alone.",
        "Lower is less noise; a blurred image has the lowest.",
    ),
    Measure(
        "bias",
        "Mean of image - reference over a tissue or region, in HU.",
        "0 is best; below 0 the image is too dark. More than 10 HU may change what a "
        "reader calls a tissue.",
    ),
    Measure(
        "noise",
        "Standard deviation of image - reference over a tissue or region, in HU; "
        "against a label, that of the image itself within 7 x 7 pixels.",
        "Lower is better; blurred edges count too. Against a label, compare with the "
        "input and not with 0.",
    ),
    Measure(
        "local noise",
        "Median standard deviation of image - reference within 7 x 7 pixels, in HU.",
        "Lower is better; edges hardly count, and neither does noise coarser than 7 "
        "pixels.",
    ),
    Measure(
        "dense foci",
        "Share of the mean, or of the peaks, of what is above 300 HU that the image "
        "keeps.",
        "1 is as bright as the reference; noise alone raises peaks.",
    ),
    Measure(
        "slope",
        "Steepness of vessels or of the pleura as a share of the reference's.",
        "1 is as steep; less is blurred or doubled, which it does not tell apart.",
    ),
    Measure(
        "rise",
        "Distance in mm over which the mean edge goes from 10 to 90 %.",
        "As short as the reference's is best.",
    ),
    Measure(
        "outline",
        "Mean distance of the lungs' outline from the reference's, in mm.",
        "0 is best; compare with the input, whose outline only noise moves.",
    ),
    Measure(
        "error frequency",
        "Peak or mean frequency of the power of image - reference, in cycles per mm.",
        "As high as the input's; lower is blotches. It says nothing of how much noise "
        "there is.",
    ),
    Measure(
        "removed edges",
        "How much of the reference's edges is in input - image: share of their slope, "
        "correlation of gradients, share of tiles that correlate.",
        "0, for a correlation as much as by chance and for tiles 0.001: pure noise "
        "knows nothing of the reference.",
    ),
    Measure(
        "FID",
        "Distance of the distributions of features of images and references.",
        "As low as its floor, which a perfect image reaches; it sees style, not "
        "lesions, and few images raise it.",
    ),
    Measure(
        "KID",
        "Distance of the same distributions that the number of images does not bias.",
        "As low as its floor; it sees style, not lesions.",
    ),
    Measure(
        "contrast kept",
        "Contrast of inserted nodules as a share of the true one.",
        "1 is all of it.",
    ),
    Measure(
        "density error",
        "Mean of image - truth over the core of inserted nodules, in HU.",
        "0 is best.",
    ),
    Measure(
        "diameter error",
        "Diameter of the mean nodule at half of its height less the true one, in mm.",
        "0 is best.",
    ),
    Measure(
        "d'",
        "How well a Hotelling observer tells inserted nodules from empty places.",
        "Higher is better, and beyond 5 hardly any is missed; he is better than a "
        "radiologist.",
    ),
    Measure(
        "equivalent dose",
        "The dose at which the observer sees as much in the undenoised scan, as a "
        "share of the normal dose.",
        "Above the scan's own dose: the denoiser shows more than the scan did.",
    ),
)
MEASURES = {one.name: one for one in _MEASURES}
"""By their names, as columns give them."""


def glossary_of(tables: Iterable[Table]) -> list[Measure]:
    """Returns the measures that columns name, each once, in the order above.

    Raises:
      KeyError: a column names no measure.
    """
    named = {
        column.measure for table in tables for column in table.columns if column.measure
    }
    if unknown := named - MEASURES.keys():
        raise KeyError(f"columns name unknown measures: {sorted(unknown)}")
    return [one for name, one in MEASURES.items() if name in named]

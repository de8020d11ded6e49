"""What the measures of a report mean, in one line each, and which values are good."""

from collections.abc import Iterable

from common.report.parts import Measure, Section, Table

TOP1 = "top-1"
BEST = "best top-1"
AS_TEACHER = "as teacher"
KL = "KL"
DIFFERENCE = "quantized minus this"
AGREEMENT_ON_SAMPLES = "agreement_on_samples"
BITS = "bits"
RANGE = "range"
STEP = "step"
STORED = "one byte a code"
PACKED = "packed"
PSNR = "PSNR"
PSNR_TO_FLOAT = "PSNR to float"
BIAS = "bias"
MOVED = "moved most"
NOISE = "noise"
OUTLINE = "outline"

_BNS = (
    "BatchNorm statistics of the samples against those of the training images, in "
    "{mode} mode: the loss in its {form} form, a mean over layers"
)
_BNS_GOOD = (
    "near 0; samples that match every statistic need not look like images. Compare it "
    "between runs of one network"
)
_CENTER_GOOD = (
    "near 1; 0 is no better than always the middle, and there is no lower limit. "
    "Undefined if all requests are equal"
)
_SPREAD_GOOD = (
    "the same for achieved as for requested centres; smaller means that attention "
    "stays at one place of each class"
)

MEASURES = (
    Measure(
        TOP1,
        "images whose highest logit is that of their label, in %, with Wilson's 95 % "
        "interval",
        "near the float teacher; the interval counts the choice of images, not that of "
        "the seed",
    ),
    Measure(
        BEST,
        "highest top-1 of all evaluations of the run, in %",
        "near the last one; it is chosen on these same images, so it is too high",
    ),
    Measure(
        DIFFERENCE,
        "top-1 of the quantized network minus that of this one, in points, with a 95 % "
        "interval",
        "near 0 or above against the teacher, above 0 against a rounding; an interval "
        "that holds 0 shows no difference",
    ),
    Measure(
        AS_TEACHER,
        "images to which quantized network and teacher give the same class, in %",
        "near 100; it counts errors that both make too",
    ),
    Measure(
        KL,
        "Kullback-Leibler divergence of the student's softmax from the teacher's, in "
        "nats, a mean over images",
        "near 0; undefined if a logit is not a finite number",
    ),
    Measure(
        AGREEMENT_ON_SAMPLES,
        "samples of the last logged step to which student and teacher give the same "
        "class, in %",
        "near 100; samples are not images, so it does not tell the accuracy",
    ),
    Measure(
        BITS,
        "of a weight, or of a value of an activation",
        "fewer are smaller and less exact",
    ),
    Measure(
        RANGE,
        "smallest and largest value that the integers stand for, by the export's "
        "scales and zero points; of weights over all output channels",
        "as wide as the values need; a single wide range makes coarse steps",
    ),
    Measure(
        STEP,
        "distance of two neighbouring values; of weights the median of output channels",
        "small against the range; fewer bits make it larger",
    ),
    Measure(
        STORED,
        "bytes in the export, which gives each code a byte",
        "a quarter of float32 at any bits",
    ),
    Measure(
        PACKED,
        "bytes if codes had no unused bits, as an integer runtime can store them",
        "bits / 32 of float32; nothing here writes it",
    ),
    Measure(
        "finite",
        "share of samples whose image and logits are finite numbers",
        "1; less means that the generator diverged",
    ),
    Measure("center_r2", "R² of achieved centres of attention, x and y", _CENTER_GOOD),
    Measure("center_r2_x", "the same for x alone", _CENTER_GOOD),
    Measure("center_r2_y", "the same for y alone", _CENTER_GOOD),
    Measure(
        "center_slope",
        "by how much achieved centres move for each 1 requested",
        "near 1; from 0.3 on attention follows, at 0 the generator ignores the centre",
    ),
    Measure(
        "center_spread_in_class",
        "standard deviation of a coordinate of the achieved centres within a class",
        _SPREAD_GOOD,
    ),
    Measure(
        "requested_spread_in_class",
        "standard deviation of a coordinate of the requested centres within a class",
        "what the achieved spread is compared with; it only states the requests",
    ),
    Measure(
        "attention_cosine",
        "cosine of the teacher's attention in evaluation and in training mode, a mean "
        "over samples; 1 minus it is the consistency loss",
        "near 1, where both modes look at the same place; real CIFAR-10 images have "
        "0.96",
    ),
    Measure(
        "teacher_entropy",
        "entropy of the teacher's softmax on samples, in nats",
        "as real images have (CIFAR-10: 0.07 to 0.08); far below, samples are too easy",
    ),
    *(
        Measure(f"bns_{mode}_{form}", _BNS.format(mode=word, form=form), _BNS_GOOD)
        for mode, word in (("eval", "evaluation"), ("train", "training"))
        for form in ("squared", "relative")
    ),
    Measure(
        "recognised",
        "share of samples that the teacher gives the class they were made for",
        "near 1; it does not tell whether they look like that class to people",
    ),
    Measure(
        "recognised_worst_class",
        "the same for the class with the lowest share, of those drawn 16 times or more",
        "well above 0; at 0 the student learns nothing of a class",
    ),
    Measure(
        "variety",
        "distance of two samples, 1 for images of independent noise",
        "0.8 to 1.1; below 0.1 the generator makes one image",
    ),
    Measure(
        "variety_in_class",
        "the same for two samples of one class, a mean over classes",
        "as real images of a class: 0.8 to 1.1 on CIFAR-10, 0.4 to 0.6 on digits",
    ),
    Measure(
        "variety_in_pair",
        "the same for two samples of one class and centre, which differ in the latent",
        "above 0.1; below, the generator ignores its latent",
    ),
)
"""Of classifiers."""

OF_DENOISERS = (
    Measure(
        PSNR,
        "4096 HU over the RMSE of image and truth, in dB, a mean over slices",
        "near the float network; 6 dB is half the error",
    ),
    Measure(
        PSNR_TO_FLOAT,
        "the same against the image of the float network",
        "well above PSNR: then rounding errs less than the network does",
    ),
    Measure(
        BIAS,
        "mean of image - truth over a tissue, in HU, a mean over slices",
        "near that of the float network; at 8 bits 3 HU apart are too many",
    ),
    Measure(
        MOVED,
        "of all tissues the one whose bias differs most from that of the float "
        "network, with that difference in HU",
        "within 1 HU at 8 bits; the sign says whether the tissue became brighter",
    ),
    Measure(
        NOISE,
        "standard deviation of image - truth over soft tissue, in HU",
        "near the float network, far below the input",
    ),
    Measure(
        OUTLINE,
        "how far the lungs' outline lies from that of the truth, in mm",
        "near the float network",
    ),
)


def glossary(tables: Iterable[Table], sections: Iterable[Section]) -> list[Measure]:
    """Returns the measures that columns name or rows begin with, in a fixed order.

    Args:
      tables: outside of sections.
      sections: with tables in them.
    """
    inside = (part for one in sections for part in one.parts if isinstance(part, Table))
    named = set()
    for table in (*tables, *inside):
        named |= {column.measure for column in table.columns}
        named |= {row[0] for row in table.rows}
    every = (*MEASURES, *OF_DENOISERS)
    return [measure for measure in every if measure.name in named]

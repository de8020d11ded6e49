"""The defaults of every ACQ recipe: each key and its meaning; variants.

Durations are texts such as "500 steps" or "4 epochs". An epoch is
`config.train.epoch_steps` steps, because there is no dataset to go through.
"""

from collections.abc import Mapping

from ml_collections import config_dict

from common.config import ConfigDict
from common.recipe import Variants

# GDFQ as published (Xu et al., ECCV 2020): generator, losses, quantizer, optimisers,
# rates for CIFAR with their falls, and one loop. The recipe sets its length. A run that
# is shorter than 100 epochs ends before the first fall.
_GDFQ = {
    "generator": {
        "label": "product",
        "center": "none",
        "width": 128,
        "epsilon": 0.8,
        "output": "tanh",
        "shift": 0,
        "class_weight": 1.0,
        "statistics_weight": 0.1,
        "statistics_form": "squared",
        "statistics_mode": "eval",
        "center_weight": 0.0,
        "pair_weight": 0.0,
        "consistency_weight": 0.0,
        "class_spread": 0.0,
        "learning_rate": 1e-3,
        "schedule": "step",
        "learns": True,
    },
    "student": {
        "optimizer": "sgd",
        "learning_rate": 1e-4,
        "schedule": "step",
        "class_weight": 1.0,
        "kl_weight": 1.0,
        "kl_mean": "samples_and_classes",
        "temperature": 20.0,
        "hint_weight": 0.0,
        "weight_decay": 1e-4,
    },
    "quantizer": {
        "gradient": "identity",
        "range_source": "observed",
        "range_method": "minmax",
        "symmetric_weights": False,
    },
    "train": {
        "one_loop": True,
        "decay_at": ("100 epochs", "200 epochs", "300 epochs"),
    },
}
# Turns all terms of ACQ off.
_OFF = {
    "center": "none",
    "center_weight": 0.0,
    "pair_weight": 0.0,
    "consistency_weight": 0.0,
}


def without_acq(config: ConfigDict) -> None:
    """Turns every term of ACQ off and keeps the rest of the recipe."""
    config.generator.update(_OFF)


def _only(*names: str):
    """Returns the variant that keeps only the named terms of ACQ."""

    def change(config: ConfigDict) -> None:
        kept = {name: config.generator[name] for name in names}
        config.generator.update({**_OFF, **kept})

    return change


def published(config: ConfigDict) -> None:
    """Sets GDFQ's losses, quantizer and optimisers; keeps the recipe's ACQ terms."""
    ours = {name: config.generator[name] for name in _OFF}
    config.update(_GDFQ)
    config.generator.update(ours)


def with_acq(config: ConfigDict) -> None:
    """Turns every term of ACQ on, in a recipe that has them off."""
    ours = DEFAULTS["generator"]
    config.generator.update({name: ours[name] for name in _OFF})


def published_imagenet(config: ConfigDict) -> None:
    """Sets ACQ as published: GDFQ's setting and schedule for ImageNet, ACQ's terms."""
    with_acq(config)
    published(config)
    config.generator.label = "norm"
    config.student.learning_rate = 1e-6
    config.generator.warmup = "50 epochs"
    config.train.duration = "350 epochs"
    config.train.evaluate = config.train.save = "10 epochs"


def smoke(config: ConfigDict) -> None:
    """Takes a few small steps of each phase, with a teacher of random weights."""
    config.teacher.source = "random"
    config.generator.width = 8
    config.generator.latent = 8
    config.generator.warmup = "2 steps"
    config.train.duration = "2 steps"
    config.train.batch_size = 4
    config.train.log = config.train.save = config.train.evaluate = "1 steps"
    config.train.looked_at = 4
    if config.generator.learns:
        # The second phase also has the generator's step; do not compile it twice.
        config.generator.warmup = "1 steps" if config.train.one_loop else ""
    config.baselines.batches = 1


def bits(weight: int, activation: int):
    """Returns the variant with these bits for weights and activations."""

    def change(config: ConfigDict) -> None:
        config.quantizer.weight_bits = weight
        config.quantizer.activation_bits = activation

    return change


def _integer_ready(config: ConfigDict) -> None:
    config.quantizer.other_bits = 8


def _first_last_8(config: ConfigDict) -> None:
    config.quantizer.first_last_bits = 8


VARIANTS: Variants = {
    "acq": lambda config: None,
    "gdfq": without_acq,
    "center": _only("center", "center_weight"),
    "pair": _only("pair_weight"),
    "consistency": _only("consistency_weight"),
    "published": published,
    "integer_ready": _integer_ready,
    "first_last_8": _first_last_8,
    **{f"w{b}a{b}": bits(b, b) for b in (3, 4, 5, 6, 8)},
}


def variants(**more) -> Variants:
    """Returns the variants of all recipes, with more for one recipe."""
    return {**VARIANTS, **more}


def imagenet_variants() -> Variants:
    """Returns the variants of recipes for ImageNet, which have ACQ's terms off."""

    def of_acq(name: str):
        def change(config: ConfigDict) -> None:
            with_acq(config)
            VARIANTS[name](config)

        return change

    terms = {name: of_acq(name) for name in ("acq", "center", "pair", "consistency")}
    return variants(**terms, published=published_imagenet, smoke=smoke)


DEFAULTS = {
    "method": "acq",
    "task": "quantize",
    "seed": 0,
    "data": {
        "cache": "",  # folder of downloads; '': the caches of the hub and of TFDS
    },
    "teacher": {
        "source": "weights",  # weights, digits (trains it), random (smoke)
        "name": "resnet20",  # a name of acq.models, or package.module:Class
        "depth": 0,  # of a CIFAR ResNet: 8, 14, ..., 6 n + 2; 0: as in the name
        "weights": "",  # .safetensors, .npz, .pth, .th, or an export's folder
        # Of a checkpoint with weights of several networks: state_dict, state_dict_ema,
        # model, model_ema, ...; '': it holds those of one.
        "weights_key": "",
        "classes": 10,
        "shortcut": "",  # of a CIFAR ResNet: zero_pad, projection
        # For ResNet-50: True for pytorchcv's resnet50, False for its resnet50b, because
        # the names of pytorchcv's tensors do not show which. None for other libraries.
        "stride_in_first": None,
        "width_multiplier": 0.0,  # of MobileNetV2: 0.5, 1.4; 0 means 1
        "hidden": 0,  # width of VGG's dense layers; 0: 4096
        "mean": (0.485, 0.456, 0.406),  # of the images in [0, 1]
        "std": (0.229, 0.224, 0.225),
        "image_size": 0,  # pixels; 0: as the named network has
        "hub_repo": "",  # Hugging Face repository, used if teacher.weights is ''
        "hub_file": "",
        "hub_revision": "main",
        "hub_sha256": "",  # of hub_file; '': not checked, but reported
        "sha256": "",  # of any file of weights; overrides hub_sha256
    },
    "quantizer": {
        "weight_bits": 4,  # every conv and dense layer, with the first and last
        "activation_bits": 4,
        "other_bits": 0,  # input, branches, input of the classifier; 0: float
        # Bits of the first convolution and the last dense layer, and of the activation
        # called just before each, if it is quantized; 0: as all others.
        "first_last_bits": 0,
        # Bits of single layers: a quoted dictionary from names or patterns (fnmatch) to
        # bits, "{'layer1_*/conv1': 3, 'fc': 8}". For convolutions and dense layers they
        # are bits of the weights, for activations (act1) bits of the output. If several
        # match, the last counts. The error for an unknown name lists all names.
        "layers": "",
        # MB (10^6 bytes) that all packed weights with their scales may have. The bits
        # of each layer's weights are chosen for it, from 2 to 8, without data; layers
        # that have bits of their own keep them, and weight_bits is not used. 0: off.
        "budget_mb": 0.0,
        "symmetric_weights": False,
        "gradient": "learned",  # of activations: identity, clipped, learned
        "range_source": "bn_statistics",  # bn_statistics, observed
        "range_method": "mse",  # for bn_statistics: minmax, mse
        "observe": "4 epochs",  # for observed: how long, before ranges freeze
        "decay": 0.9,  # for observed: of the moving average
    },
    "generator": {
        "width": 64,  # 128 as published
        "latent": 100,
        "epsilon": 1e-5,  # of the hidden normalisations; 0.8 as published
        "output": "pixels",  # tanh (published), pixels
        "label": "norm",  # product (published for CIFAR), norm (ImageNet)
        "class_spread": 0.1,  # of the initial scales of classes; 0 as published
        "center": "window",  # window, heat_map, latent, none
        "sigma": 0.3,  # of the heat map, in half image sides
        "height": 3.0,
        "reach": 0.25,  # centres are uniform in [-reach, reach]^2
        # Largest shift of the samples that the teacher sees, in pixels; black moves in.
        # Use the shift of its training images: 4 for CIFAR's usual padded crops.
        "shift": 0,
        "power": 2.0,  # sharpens the attention before its centre is computed
        "attention": "energy",  # energy, grad_cam
        "class_weight": 0.02,  # 1 as published
        "statistics_weight": 5.0,  # 0.1 as published
        "statistics_form": "relative",  # squared (published), relative
        "statistics_mode": "eval",  # eval (published), train
        "center_weight": 1.5,
        "center_ramp": "",  # duration over which center_weight grows from 0
        "pair_weight": 0.05,
        "consistency_weight": 1.0,
        "learning_rate": 0.02,  # 1e-3 as published
        # For the warm-up; beside the student `student.schedule` counts. With
        # `train.one_loop` it is for the whole run.
        "schedule": "cosine",  # cosine, constant, step
        "warmup": "4 epochs",  # the generator learns, the student does not yet
        "learns": False,  # whether the generator also learns beside the student
        "path": "",  # start from the workdir/generator of another run
    },
    "student": {
        "optimizer": "adam",  # adam, sgd (Nesterov, published)
        "learning_rate": 3e-4,
        "schedule": "cosine",  # cosine, constant, step (train.decay_at)
        "weight_decay": 0.0,
        "class_weight": 0.0,
        "kl_weight": 1.0,
        "kl_mean": "samples",  # samples, samples_and_classes (published)
        "temperature": 1.0,
        "hint_weight": 10.0,  # of the activations' distance; 0 as published
    },
    "train": {
        "duration": "600 steps",  # of the student, after the warm-up
        # Whether generator and student have one loop, as published. Then the generator
        # has one optimiser and one schedule, and during the warm-up the student only
        # observes its ranges on the samples. Else the warm-up is a separate phase.
        "one_loop": False,
        # When rates of schedule `step` fall to a tenth, counted from the first warm-up
        # step.
        "decay_at": ("100 epochs", "200 epochs", "300 epochs"),
        "epoch_steps": 200,
        "batch_size": 64,  # samples a step, over all devices
        "looked_at": 320,  # samples in the diagnosis; 320 show a dead class of ten
        "log": "20 steps",
        "evaluate": "150 steps",
        "save": "150 steps",
    },
    "baselines": {
        # noise, bn_statistics, generated, untrained (GDFQ's ranges, no step), real
        "run": ("noise", "bn_statistics", "generated", "untrained", "real"),
        "batches": 4,  # of images, to measure ranges on
    },
    # Labelled images, used only to evaluate. Without them no accuracy is measured.
    "eval": {
        # An .npz with images and labels, a folder with a subfolder of images per class,
        # or a folder that TFDS prepared. It overrides eval.dataset.
        "path": "",
        "dataset": "",  # digits, or of TFDS: cifar10, cifar100, imagenet2012
        "split": "",  # of the dataset; '': test or validation
        "classes": "",  # a text file with a subfolder per line; '': sorted
        "resize": 0.0,  # crop / resized short side; 0: images as they are
        "interpolation": "bilinear",  # of resizing: bilinear, bicubic, lanczos
        "batch_size": 250,
        "limit": 0,  # images, the same number of each class; 0: all
    },
}


def get_base(teacher: Mapping[str, object]) -> ConfigDict:
    """Returns the defaults, with the recipe's teacher.

    Args:
      teacher: values for keys of `config.teacher`.
    """
    config = ConfigDict(DEFAULTS)
    # Made here, because ConfigDict would share one placeholder between configs.
    config.teacher.stride_in_first = config_dict.placeholder(bool)
    config.teacher.update(teacher)
    return config


def get_imagenet(teacher: Mapping[str, object]) -> ConfigDict:
    """Returns the defaults for an ImageNet teacher.

    They are the losses, the quantizer and the rates of CIFAR's recipe without ACQ's
    terms, which cost accuracy on EfficientNet-Lite0 (docs/acq.md). Batches are of 16.
    The generator sees as many samples as there, 51,200. The student sees 153,600 as in
    the longer table of docs/acq.md.

    Args:
      teacher: as in `get_base`.
    """
    config = get_base({"classes": 1000, **teacher})
    config.generator.warmup = "3200 steps"
    config.train.duration = "9600 steps"
    config.train.batch_size = 16
    config.train.evaluate = config.train.save = "800 steps"
    config.eval.resize = 0.875
    without_acq(config)
    return config

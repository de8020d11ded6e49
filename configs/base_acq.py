"""What every ACQ recipe starts from; recipes change some of it.

Durations are texts such as "500 steps" or "4 epochs"; an epoch is
`config.train.epoch_steps` steps, since there are no data to go through.
"""

from collections.abc import Mapping

from ml_collections import config_dict

from common.config import ConfigDict
from common.recipe import Variants

# GDFQ as published (Xu et al., ECCV 2020): generator, losses, quantizer, optimisers,
# rates (CIFAR's), when they fall, and its one loop; how long that is is the recipe's.
# A run that is shorter than 100 epochs ends before the first fall.
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
# One of ACQ's terms on the same generator, the others off.
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
    """Turns the named terms on, at the recipe's weights, and the others off."""

    def change(config: ConfigDict) -> None:
        kept = {name: config.generator[name] for name in names}
        config.generator.update({**_OFF, **kept})

    return change


def published(config: ConfigDict) -> None:
    """GDFQ's losses, quantizer and optimisers under the recipe's ACQ terms."""
    ours = {name: config.generator[name] for name in _OFF}
    config.update(_GDFQ)
    config.generator.update(ours)


def published_imagenet(config: ConfigDict) -> None:
    """The same with GDFQ's form of the generator and rate for ImageNet."""
    published(config)
    config.generator.label = "norm"
    config.student.learning_rate = 1e-6


def smoke(config: ConfigDict) -> None:
    """A few steps of everything, tiny, with a teacher of random weights."""
    config.teacher.source = "random"
    config.generator.width = 8
    config.generator.latent = 8
    config.generator.warmup = "2 steps"
    config.train.duration = "2 steps"
    config.train.batch_size = 4
    config.train.log = config.train.save = config.train.evaluate = "1 steps"
    config.train.looked_at = 4
    if config.generator.learns:
        # The second phase has the generator's step too: no need to compile it twice.
        config.generator.warmup = "1 steps" if config.train.one_loop else ""
    config.baselines.batches = 1


def bits(weight: int, activation: int):
    """Returns the variant with these bits of weights and activations."""

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
    """Returns the variants of every recipe and a recipe's own."""
    return {**VARIANTS, **more}


def get_base(teacher: Mapping[str, object]) -> ConfigDict:
    """Returns the defaults.

    Args:
      teacher: what the recipe's teacher is; keys of `config.teacher`.
    """
    config = ConfigDict()
    config.method = "acq"
    config.task = "quantize"
    config.seed = 0

    config.data = ConfigDict()
    config.data.cache = ""  # of downloads; '': where the hub's and TFDS's own are

    config.teacher = ConfigDict()
    config.teacher.source = "weights"  # weights, digits (trains it), random (smoke)
    config.teacher.name = "resnet20"  # of acq.models, or package.module:Class
    config.teacher.depth = 0  # of a CIFAR ResNet: 8, 14, ..., 6 n + 2; 0: the name's
    config.teacher.weights = ""  # .safetensors, .npz, .pth, .th, or an export's folder
    config.teacher.classes = 10
    config.teacher.shortcut = ""  # of a CIFAR ResNet: zero_pad, projection
    # Of ResNet-50: True for pytorchcv's resnet50, False for its resnet50b; pytorchcv's
    # names do not tell which, other libraries' leave it None.
    config.teacher.stride_in_first = config_dict.placeholder(bool)
    config.teacher.width_multiplier = 0.0  # of MobileNetV2: 0.5, 1.4; 0: 1
    config.teacher.hidden = 0  # of VGG: its dense layers; 0: 4096
    config.teacher.mean = (0.485, 0.456, 0.406)  # of the images in [0, 1]
    config.teacher.std = (0.229, 0.224, 0.225)
    config.teacher.image_size = 0  # pixels; 0: the name's
    config.teacher.hub_repo = ""  # of the Hugging Face hub, without teacher.weights
    config.teacher.hub_file = ""
    config.teacher.hub_revision = "main"
    config.teacher.hub_sha256 = ""  # of that file; '': not checked, but reported
    config.teacher.sha256 = ""  # of any file of weights, before the hub's
    config.teacher.update(teacher)

    config.quantizer = ConfigDict()
    config.quantizer.weight_bits = 4  # every conv and dense layer, first and last too
    config.quantizer.activation_bits = 4
    config.quantizer.other_bits = 0  # input, branches, classifier's input; 0: float
    # Of the first convolution and the last dense layer, and of the activation called
    # just before each where it is quantized; 0: as all others.
    config.quantizer.first_last_bits = 0
    # Bits of single layers, a dictionary in quotes from names or patterns (fnmatch) to
    # bits: "{'layer1_*/conv1': 3, 'fc': 8}". Of convolutions and dense layers they are
    # the weights' bits, of activations (act1) the output's; of several that match the
    # last counts. A name that is none is refused with the list of names.
    config.quantizer.layers = ""
    config.quantizer.symmetric_weights = False
    config.quantizer.gradient = "learned"  # of activations: identity, clipped, learned
    config.quantizer.range_source = "bn_statistics"  # bn_statistics, observed
    config.quantizer.range_method = "mse"  # minmax, mse; of bn_statistics
    config.quantizer.observe = "4 epochs"  # observed: how long, before they are frozen
    config.quantizer.decay = 0.9  # observed: of the moving average

    config.generator = ConfigDict()
    config.generator.width = 64  # 128 as published
    config.generator.latent = 100
    config.generator.epsilon = 1e-5  # of the hidden normalisations; 0.8 as published
    config.generator.output = "pixels"  # tanh (published), pixels
    config.generator.label = "norm"  # product (published for CIFAR), norm (ImageNet)
    config.generator.class_spread = 0.1  # of first scales by class; 0 as published
    config.generator.center = "window"  # window, heat_map, latent, none
    config.generator.sigma = 0.3  # of the heat map, in half image sides
    config.generator.height = 3.0
    config.generator.reach = 0.25  # centres are uniform in [-reach, reach]^2
    # Pixels that the teacher sees samples shifted by at most, black moved in, as its
    # training images were; 4 for CIFAR's usual padded crops.
    config.generator.shift = 0
    config.generator.power = 2.0  # that sharpens attention before its centre is taken
    config.generator.attention = "energy"  # energy, grad_cam
    config.generator.class_weight = 0.02  # 1 as published
    config.generator.statistics_weight = 5.0  # 0.1 as published
    config.generator.statistics_form = "relative"  # squared (published), relative
    config.generator.statistics_mode = "eval"  # eval (published), train
    config.generator.center_weight = 1.5
    config.generator.center_ramp = ""  # over which it grows from 0
    config.generator.pair_weight = 0.05
    config.generator.consistency_weight = 1.0
    config.generator.learning_rate = 0.02  # 1e-3 as published
    # Of the warm-up, and beside the student `student.schedule`; in one loop of the run.
    config.generator.schedule = "cosine"  # cosine, constant, step
    config.generator.warmup = "4 epochs"  # the generator learns, the student not yet
    config.generator.learns = False  # whether it goes on learning beside the student
    config.generator.path = ""  # another run's workdir/generator, to start from

    config.student = ConfigDict()
    config.student.optimizer = "adam"  # adam, sgd (Nesterov, published)
    config.student.learning_rate = 3e-4
    config.student.schedule = "cosine"  # cosine, constant, step (train.decay_at)
    config.student.weight_decay = 0.0
    config.student.class_weight = 0.0
    config.student.kl_weight = 1.0
    config.student.kl_mean = "samples"  # samples, samples_and_classes (published)
    config.student.temperature = 1.0
    config.student.hint_weight = 10.0  # of activations apart; 0 as published

    config.train = ConfigDict()
    config.train.duration = "600 steps"  # of the student, after the warm-up
    # Whether generator and student have one loop, as published: with one optimiser of
    # the generator and one schedule, and a student that through the warm-up only sees
    # the samples, which its observed ranges follow. Else the warm-up is a phase apart.
    config.train.one_loop = False
    # When rates of schedule `step` fall to a tenth, from the start of the warm-up.
    config.train.decay_at = ("100 epochs", "200 epochs", "300 epochs")
    config.train.epoch_steps = 200
    config.train.batch_size = 64  # samples a step, over all devices
    config.train.looked_at = 320  # samples diagnosed; 320 tell a dead class of ten
    config.train.log = "20 steps"
    config.train.evaluate = "150 steps"
    config.train.save = "150 steps"

    config.baselines = ConfigDict()
    # noise, bn_statistics, generated, untrained (GDFQ's ranges, no step), real
    config.baselines.run = (
        "noise",
        "bn_statistics",
        "generated",
        "untrained",
        "real",
    )
    config.baselines.batches = 4  # of images, to take ranges from

    # Labelled images, only ever used to evaluate; without them there is no accuracy.
    config.eval = ConfigDict()
    # An .npz with images and labels, a folder with a subfolder of images a class, or a
    # folder that TFDS prepared; it goes before a dataset.
    config.eval.path = ""
    config.eval.dataset = ""  # digits; of TFDS: cifar10, cifar100, imagenet2012
    config.eval.split = ""  # of it; '': test or validation
    config.eval.classes = ""  # a text file: a subfolder a line; '': sorted
    config.eval.resize = 0.0  # crop over the resized short side; 0: as they are
    config.eval.interpolation = "bilinear"  # of resizing: bilinear, bicubic, lanczos
    config.eval.batch_size = 250
    config.eval.limit = 0  # images, evenly of every class; 0: all
    return config


def get_imagenet(teacher: Mapping[str, object]) -> ConfigDict:
    """Returns the defaults for an ImageNet teacher: GDFQ's published schedule there.

    Args:
      teacher: as in `get_base`.
    """
    config = get_base({"classes": 1000, **teacher})
    published_imagenet(config)
    config.generator.warmup = "50 epochs"
    config.train.duration = "350 epochs"
    config.train.batch_size = 16
    config.train.evaluate = config.train.save = "10 epochs"
    config.eval.resize = 0.875
    return config

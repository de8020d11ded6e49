"""ACQ for denoisers: a trained export to an integer ONNX file, without patient images.

  python launch.py --config configs/ipv2_batch_norm.py --workdir RUN
  python launch.py --config configs/acq_denoiser.py --config.teacher.export=RUN/export

The network needs batch normalisation: its running statistics are all that the generator
knows of the training images. For one without it, or to train nothing, name the images
that give the ranges: --config.quantizer.ranges=noisy_phantom (drawn thoraxes).

Writes WORKDIR/export/model.onnx, which --config.denoise.model takes (fastest with
--config.denoise.runtime=openvino), and results.json: float network, rounding with other
ranges, and the quantized network, judged on held-out slices of a sample CT and of the
phantom. Those only judge. The row `real` takes ranges from real CT, as the best that
rounding could do if privacy allowed it.

Variants, joined by commas: `w8a8` (default), `w6a6`, `w4a4` set bits and the student's
rate; `multiplying` is for networks whose blocks multiply features (NAFNet); `gdfq`
keeps BatchNorm statistics alone of the generator's terms; `smoke` takes a tiny
untrained network and the phantom, and a minute, nearly all of it compilation.

Hardware and time: with the DnCNN of configs/ipv2_batch_norm.py a step of the generator
takes 0.5 s and one of the student 0.8 s on one CPU core. With the judgement that makes
about five minutes.
"""

from common.config import ConfigDict
from common.recipe import Variants, apply_variants

DEFAULTS = {
    "method": "acq",
    "task": "quantize_denoiser",
    "seed": 0,
    "data": {
        "cache": "runs/datasets",  # folder of built data sets
    },
    "teacher": {
        # Opens the network: package.module:function, see common/image_network.py.
        "open": "ipv2.tasks.image_network:open_denoiser",
        "export": "",  # folder of the export, or of its run
    },
    "quantizer": {
        "weight_bits": 8,
        "activation_bits": 8,  # of the inputs of convolutions
        "first_last_bits": 8,  # of the first and the last convolution; 0: as others
        # generated: the generator's images, from which the student learns. Others are
        # rounding alone, with ranges of: noise; statistics (BatchNorm parameters);
        # phantom; noisy_phantom; real (patients).
        "ranges": "generated",
        "range_method": "mse",  # minmax, mse
    },
    "generator": {
        "image_size": 48,  # pixels, a multiple of the network's
        "width": 32,
        "latent": 64,
        "center": "heat_map",  # window, heat_map, latent, none
        "reach": 0.5,  # centres are uniform in [-reach, reach]^2
        "power": 2.0,  # sharpens the attention before its centre is computed
        "statistics_weight": 1.0,
        "statistics_form": "relative",  # squared, relative
        "center_weight": 0.2,
        "pair_weight": 0.05,
        "consistency_weight": 0.2,
        # The inputs of BatchNorm are cut off at 10 running standard deviations, at the
        # first step at this many. 4: for blocks that multiply features, as NAFNet's.
        "first_bound": 10.0,
        "learning_rate": 0.01,
        "duration": "150 steps",
    },
    "student": {
        "learning_rate": 2e-5,
        "output_weight": 1.0,  # of the distance of outputs
        "hint_weight": 1.0,  # of the distance of the inputs of convolutions
        "duration": "100 steps",
    },
    "train": {
        "batch_size": 16,  # samples a step, over all devices
        "log": "10 steps",
        "save": "50 steps",
    },
    "baselines": {
        # Rounding alone; those that the network or the data lack are left out.
        "run": ("noise", "statistics", "noisy_phantom", "generated", "real"),
        "images": 64,  # that give the ranges, also those of the student
    },
    "judge": {
        "embedded": ("sample_ct", "phantom"),
        "size": 512,  # of the phantom, pixels
        "slices": 2,  # of each data set; 0: all that are held out
    },
}


def _bits(bits: int, rate: float):
    def change(config: ConfigDict) -> None:
        config.quantizer.weight_bits = config.quantizer.activation_bits = bits
        config.student.learning_rate = rate

    return change


def _gdfq(config: ConfigDict) -> None:
    config.generator.center = "none"
    config.generator.center_weight = 0.0
    config.generator.pair_weight = 0.0
    config.generator.consistency_weight = 0.0


def _multiplying(config: ConfigDict) -> None:
    config.generator.first_bound = 4.0


def _smoke(config: ConfigDict) -> None:
    config.teacher.open = "ipv2.tasks.image_network:untrained_denoiser"
    config.generator.image_size = 16
    config.generator.width = 4
    config.generator.latent = 8
    config.generator.duration = config.student.duration = "2 steps"
    config.train.batch_size = 8
    config.train.log = config.train.save = "1 steps"
    config.baselines.run = ("statistics", "noisy_phantom")
    config.baselines.images = 4
    config.judge.embedded = ("phantom",)
    config.judge.size = 64
    config.judge.slices = 1


VARIANTS: Variants = {
    "w8a8": _bits(8, 2e-5),
    "w6a6": _bits(6, 1e-4),
    "w4a4": _bits(4, 5e-4),
    "gdfq": _gdfq,
    "multiplying": _multiplying,
    "smoke": _smoke,
}


def get_config(variant: str = "default") -> ConfigDict:
    """Returns the recipe's config, changed by the variants named."""
    return apply_variants(ConfigDict(DEFAULTS), variant, VARIANTS)

"""What every IPv2 recipe starts from: each key, what it means, its unit."""

from common.config import ConfigDict

# How a training pair may be composed, as overrides of `purify`: the two methods, IPv2's
# ablations, and our extension.
PAIRS = {
    "none": {"version": "none"},
    "v1": {"version": "v1"},
    "v2": {"version": "v2"},
    "no_background": {"version": "v2", "remove_background": False},
    "no_add": {"version": "v2", "add_noise": "none"},
    "no_remove": {"version": "v2", "remove_noise": "none"},
    "aligned": {"version": "v2", "align_contour": True},
}


def get_base() -> ConfigDict:
    """Returns IPv2 on embedded data with RED-CNN, to be changed by a recipe."""
    config = ConfigDict()
    config.method = "ipv2"
    config.task = "train"
    config.seed = 0
    config.strict = False  # skipped volumes end in exit status 3

    config.data = ConfigDict()
    # Your pairs: a folder with lq/ and gt/, any CT format, paired by name.
    config.data.root = ""
    # Or your normal-dose scans: a breath and a low dose are simulated from them.
    config.data.normal_dose = ""
    # With neither: real chest CT (fetched, 19 MB) and the phantom, both or one.
    config.data.embedded = ("sample_ct", "phantom")
    config.data.cache = "runs/datasets"
    config.data.series = ""  # which series, where a folder holds several
    config.data.window = (0.0, 0.0)  # (centre, width) in HU of PNG; (0, 0): grey levels
    config.data.pixel_mm = 0.0  # size of a pixel, for files that do not say; 0: unknown
    config.data.gaps = "refuse"  # unevenly spaced slices: refuse, allow (2-D work only)
    config.data.multiframe = False  # write a DICOM series as one multi-frame file
    config.data.trust_hu = False  # take values for HU that do not look like it
    config.data.split = (0.8, 0.1, 0.1)  # train, val, test; by a hash of the names
    config.data.split_by = "patient"  # patient, slice (which leaks: for one patient)
    # Or by name, ("p1", "p7"): these alone are held out, all others are for train.
    config.data.val_patients = ()
    config.data.test_patients = ()
    # Names pair where what the groups match is equal: "(?:quarter|full)_(.+)".
    config.data.name_pattern = ""
    config.data.match = "position"  # of slices of lq and gt: position, index
    config.data.phantom_size = 512
    config.data.phantom_patients = (6, 1, 2)
    config.data.phantom_slices = 8  # of each patient

    config.purify = ConfigDict()
    config.purify.version = "v2"  # none, v1, v2
    config.purify.variant = "robust"  # robust, reference
    config.purify.window = (-600.0, 1500.0)  # of the 8-bit grey of `reference`, HU
    config.purify.t = 0.1  # v1: share of gt blended into the tissue
    config.purify.remove_background = True
    config.purify.align_contour = False  # also align the body's outline; not published
    config.purify.add_noise = "physical"  # none, reference, physical
    config.purify.remove_noise = "tv"  # none, tv, gaussian, median
    config.purify.output = ""  # task purify: the folder to write
    config.purify.overwrite = False

    config.noise = ConfigDict()
    config.noise.dose = 0.02  # of the normal dose
    config.noise.input_dose = 1.0  # the dose the normal-dose images were taken at
    config.noise.photons = 1.5e5  # a detector bin and view through air, at normal dose
    config.noise.electronic_variance = 10.0  # photons^2
    config.noise.views = 0  # over half a turn; 0: as many as the image has pixels
    config.noise.filter_name = "hann"  # the scanner's kernel, as are the next two
    config.noise.cutoff = 1.0  # of the detector's Nyquist: lower is softer, up to 4
    config.noise.window = ()  # factors on it up to Nyquist, measured by task calibrate
    config.noise.source_distance_mm = 0.0  # of a fan beam, about 600; 0: parallel

    config.model = ConfigDict()
    config.model.name = "redcnn"
    config.model.dtype = "float32"  # float32, bfloat16
    config.model.channels = 1  # slices seen: 3 is the slice and a neighbour either side
    config.model.width = 0  # channels of the first layers; 0: as published
    config.model.remat = False  # recompute blocks in the backward pass: less memory

    config.flow = ConfigDict()  # of the flow models, fm and ffm
    config.flow.sampler = "euler"  # euler, heun, midpoint
    config.flow.steps = 8  # 50 as published
    config.flow.time_scale = 1000.0  # of the time embedding; 1.0 as published, a fault
    config.flow.dropout_in_evaluation = False  # True as published, a fault

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "cosine"  # cosine, step, constant
    config.optimizer.boundaries = (0.5, 0.75)  # step: where, as shares of the run
    config.optimizer.factor = 0.1  # step: what the rate is multiplied by there
    config.optimizer.warmup = ""  # "500 steps", "2 epochs"; none
    config.optimizer.clip_norm = 1.0  # of the gradient; 0: no clipping

    config.train = ConfigDict()
    config.train.duration = "200 epochs"  # or "5000 steps"
    config.train.batch_size = 8  # patches a step, over all devices
    config.train.loss = "mse"  # mse, l1
    config.train.patch = 64  # pixels
    config.train.patches_per_slice = 4
    config.train.accumulate = 1  # parts of a batch, one after the other: less memory
    config.train.ema = 0.0  # decay of averaged parameters, 0.999; 0: none
    config.train.log = "50 steps"
    config.train.evaluate = "10 epochs"
    config.train.save = "10 epochs"

    config.evaluate = ConfigDict()
    config.evaluate.batch_size = 4  # slices
    config.evaluate.slices = 0  # of the split, evenly spread; 0: all

    # Task denoise: the network exported in the workdir, on your CT.
    config.denoise = ConfigDict()
    config.denoise.input = ""  # a file, a folder of one series, or of many volumes
    config.denoise.output = ""  # the folder to write; '': denoised in the workdir
    config.denoise.overwrite = False  # whether to make anew what is there
    config.denoise.batch_size = 1  # slices or tiles at once, rounded up to the devices
    # Pixels; 0: whole slices; -1: whole, or 256 where results depend on all of a slice.
    config.denoise.tile = -1
    config.denoise.overlap = -1  # of tiles, pixels; -1: what the network needs

    # Task compare: one training for each model and pairs, then one table.
    config.compare = ConfigDict()
    config.compare.pairs = ("none", "v1", "v2")  # of compare.options
    config.compare.models = ()  # of compare.zoo; (): config.model alone
    config.compare.options = ConfigDict(PAIRS)
    config.compare.zoo = ConfigDict()  # a model's overrides of the whole config
    return config

"""The defaults of every IPv2 recipe: each key, its meaning and its unit."""

from ml_collections import config_dict

from common.config import ConfigDict

# The kinds of training pairs, as overrides of `purify`: the two methods, IPv2's
# ablations, and ours.
PAIRS = {
    "none": {"version": "none"},
    "v1": {"version": "v1"},
    "v2": {"version": "v2"},
    "no_background": {"version": "v2", "remove_background": False},
    "no_add": {"version": "v2", "add_noise": "none"},
    "no_remove": {"version": "v2", "remove_noise": "none"},
    "aligned": {"version": "v2", "align_contour": True},
    "registered": {"version": "registered"},
    "simulated": {"version": "simulated"},
    "gated": {"version": "gated"},
    "weighted": {"version": "weighted"},
}

# Keys of `noise` for training alone.
DRAWN = {
    # `simulated` draws each example's scan from these, log-uniformly; (0, 0): the
    # values above.
    "dose_range": (0.0, 0.0),
    "photons_range": (0.0, 0.0),
    "cutoff_range": (0.0, 0.0),
    "current_range": (0.0, 0.0),  # of a slice, over the series' mean
    # Dose of the noise that `simulated` adds to its targets, for images without
    # noise; 0: targets are the images. One for each of `train.shrink`.
    "target_dose": (0.0,),
}

DEFAULTS = {
    "method": "ipv2",
    "task": "train",
    "seed": 0,
    "strict": False,  # whether skipped volumes end in exit status 3
    "data": {
        # Your pairs: a folder with lq/ and gt/, in any CT format, paired by name.
        "root": "",
        # Or your normal-dose scans. The code simulates a breath and a low dose.
        "normal_dose": "",
        # With neither: real chest CT (19 MB download) and the phantom, or one of them.
        "embedded": ("sample_ct", "phantom"),
        "cache": "runs/datasets",
        "series": "",  # which series, if a folder holds several
        "window": (0.0, 0.0),  # of PNG: (centre, width) in HU; (0, 0): grey levels
        "pixel_mm": 0.0,  # pixel size of files that do not state it; 0: unknown
        "gaps": "refuse",  # uneven slice distances: refuse, allow (2-D work only)
        "multiframe": False,  # write a DICOM series as one multi-frame file
        "trust_hu": False,  # accept values that do not look like HU
        "split": (0.8, 0.1, 0.1),  # train, val, test, by a hash of the names
        "split_by": "patient",  # patient; slice leaks, and is for a single patient
        # Or by name, ("p1", "p7"): only these are held out, all others are for train.
        "val_patients": (),
        "test_patients": (),
        # Two names pair if the groups match equal text: "(?:quarter|full)_(.+)".
        "name_pattern": "",
        "match": "position",  # how slices of lq and gt are matched: position, index
        "sample_slices": (12, 50),  # of the sample CT: (first, end); lungs are in these
        # Numbers of its slices to hold out, in place of `split`: (40, 41).
        "sample_val": (),
        "sample_test": (),
        "phantom_size": 512,
        "phantom_patients": (6, 1, 2),
        "phantom_slices": 8,  # of each patient
    },
    "purify": {
        # none, v1, v2; registered (gt deformed onto lq); ours: simulated (noise on gt),
        # gated (lq's noise where the breaths agree, simulated elsewhere), weighted (a
        # loss where they agree)
        "version": "v2",
        "variant": "robust",  # robust, reference
        "window": (-600.0, 1500.0),  # of the 8-bit grey levels of `reference`, HU
        "t": 0.1,  # v1: share of gt blended into the tissue
        "remove_background": True,
        "align_contour": False,  # also align the body's outline; not published
        "add_noise": "physical",  # none, reference, physical
        "remove_noise": "tv",  # none, tv, gaussian, median
        # Task purify: whether masks use the order of the slices, to leave airways and
        # bowel gas out of the lungs. None: where slices have positions.
        "volume": None,
        "output": "",  # task purify: folder to write
        "overwrite": False,
    },
    "noise": {
        "dose": 0.02,  # of the normal dose
        "input_dose": 1.0,  # dose of the normal-dose images
        "photons": 1.5e5,  # per detector bin and view through air, normal dose
        "electronic_variance": 10.0,  # photons^2
        "views": 0,  # over half a turn; 0: as many as the image has pixels
        "filter_name": "hann",  # this and the next two: the scanner's kernel
        "cutoff": 1.0,  # of the detector's Nyquist, up to 4; lower is softer
        "window": (),  # factors up to Nyquist, as task calibrate measures them
        "source_distance_mm": 0.0,  # of a fan beam, about 600; 0: parallel
        "bowtie_mm": 0.0,  # radius of the water that the bowtie is made for; 0: none
        **DRAWN,
    },
    "model": {
        "name": "redcnn",
        "dtype": "float32",  # float32, bfloat16
        "channels": 1,  # input slices; 3: the slice and its two neighbours
        "width": 0,  # channels of the first layers; 0: as published
        "remat": False,  # recompute blocks in the backward pass, to save memory
        # Task export: a file of the authors' weights of ffm, .pth or .safetensors, and
        # the window of their grey levels, (centre, width) in HU. It is not published.
        "weights": "",
        "window": (-600.0, 1500.0),
    },
    "flow": {  # of the flow models fm and ffm
        "sampler": "euler",  # euler, heun, midpoint
        "steps": 8,  # 50 as published
        "time_scale": 1000.0,  # of the time embedding; 1.0 as published, a fault
        "dropout_in_evaluation": False,  # True as published, a fault
    },
    "optimizer": {
        "learning_rate": 1e-4,
        "schedule": "cosine",  # cosine, step, constant
        "boundaries": (0.5, 0.75),  # for step: falls, as shares of the run
        "factor": 0.1,  # for step: factor on the rate at each fall
        "warmup": "",  # "500 steps", "2 epochs"; '': none
        "clip_norm": 1.0,  # of the gradient; 0: no clipping
    },
    "train": {
        "duration": "200 epochs",  # or "5000 steps"
        "batch_size": 8,  # patches a step, over all devices
        # mse, l1, log_mse, relative_mse, relative_mse_means
        "loss": "mse",
        "patch": 64,  # pixels
        "patches_per_slice": 4,
        "shrink": (1,),  # simulated: means of n x n pixels; steps take these n in turn
        "accumulate": 1,  # parts of a batch, run in turn to save memory
        # An export, a run that has one, or shipped: training goes on from its network,
        # with a new optimiser. '': from random weights.
        "start": "",
        "ema": 0.0,  # decay of averaged parameters, such as 0.999; 0: none
        "log": "50 steps",
        "evaluate": "10 epochs",
        "save": "10 epochs",
    },
    "evaluate": {
        "batch_size": 4,  # slices
        "slices": 0,  # how many of the split, evenly spread; 0: all
        # Filters to measure beside the network: gaussian, tv, nlm, bm3d; (): none.
        "filters": ("gaussian", "tv"),
        # What to measure against: truth, gt (aligned with lq), or the test label of v1
        # or v2, which ranks no networks. '': truth if known, else gt if the pairs are
        # aligned, else v2.
        "label": "",
        # True: inserts nodules into a known truth and simulates its low dose anew.
        "detail": None,
        # FID and KID by features: inception, clip (requirements-metrics.txt), or your
        # own, ("package.module:function",). None: none.
        "features": None,
        # Task evaluate: a folder to write all measured images into, as PNG in the lung
        # window, from which anyone can compute FID and KID. '': none.
        "png": "",
        # Task evaluate: a folder of outputs that other software made of data.root's
        # lq/, instead of a network.
        "outputs": "",
    },
    # Task denoise: applies the network exported in the workdir to your CT.
    "denoise": {
        "input": "",  # a file, or a folder of one series or many volumes
        "output": "",  # folder to write; '': `denoised` in the workdir
        "embedded": "",  # instead of input: phantom, sample_ct
        # An export, the folder of a run, or an ONNX file of task export; shipped: the
        # network of weights/README.md; '': the workdir's.
        "model": "",
        "runtime": "onnxruntime",  # computes an ONNX file; or: openvino
        "overwrite": False,  # whether to replace existing results
        "batch_size": 1,  # slices or tiles at once, rounded up to the devices
        # Pixels; 0: whole slices; -1: 256 if results depend on the whole slice, else 0.
        "tile": -1,
        "overlap": -1,  # of tiles, in pixels; -1: as much as the network needs
    },
    # Task compare: trains each model on each kind of pairs, then makes one table.
    "compare": {
        # Instead of training: folders of finished runs, ("runs/a", "runs/b"), of the
        # same slices. Differences from the first, slice by slice.
        "runs": (),
        "pairs": ("none", "v1", "v2"),  # names of compare.options
        "models": (),  # names of compare.zoo; (): only config.model
        "options": PAIRS,
        "zoo": {},  # for each model: overrides of the whole config
    },
}


def get_base() -> ConfigDict:
    """Returns the defaults: IPv2 on embedded data with RED-CNN."""
    config = ConfigDict(DEFAULTS)
    # Made here, because ConfigDict would share one placeholder between configs. None is
    # also what a run of before these keys has.
    config.purify.volume = config_dict.placeholder(bool)
    config.evaluate.detail = config_dict.placeholder(bool)
    config.evaluate.features = config_dict.placeholder(tuple)
    return config
